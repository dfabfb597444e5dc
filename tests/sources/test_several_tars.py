"""Tars as WebDataset writes them, one or several, and tars of tars: labels, splits and keys."""

import json
from pathlib import Path
from typing import Any

import pytest
import webdataset
from layouts import built, contents, fill, image_bytes, origins, samples, tar, tar_bytes
from typer.testing import CliRunner

from latentscale.commands.app import app
from latentscale.containers.input_files import expand_braces
from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.shards.verifying import verify
from latentscale.sources.registry import list_source
from latentscale.sources.source_options import SourceOptions


def written(path: Path, first: int, count: int, *labels: str, classes: int = 3) -> Path:
    """A tar by WebDataset's own writer; image n has class n % classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path), encoder=True) as sink:
        for number in range(first, first + count):
            label: dict[str, Any] = {
                "cls": number % classes,
                "json": {"label": f"class {number % classes}", "n": number},
            }
            sink.write(
                {"__key__": f"{number:06d}", "jpg": image_bytes(number, kind="JPEG")} | {k: label[k] for k in labels}
            )
    return path


def label_of(folder: Path) -> dict[str, str]:
    names = ShardedDataset.open(folder).labels
    return {str(s.origin["name"]): names[s.label] for s in samples(folder) if s.origin and s.label is not None}


def notes(path: Path | list[Path], **options: Any) -> list[str]:
    return list_source("tar", path, SourceOptions(**options)).notes


@pytest.mark.parametrize("kinds", [("cls",), ("json",)])
def test_labels_beside_the_images_are_read(kinds: tuple[str], tmp_path: Path) -> None:
    path = written(tmp_path / "imagenet-train-000000.tar", 0, 12, *kinds)
    built("tar", path, tmp_path / "out")
    word = "" if kinds == ("cls",) else "class "
    assert label_of(tmp_path / "out/train") == {f"{n:06d}.jpg": f"{word}{n % 3}" for n in range(12)}
    assert ShardedDataset.open(tmp_path / "out/train").name == "imagenet-train-000000"
    field = "cls" if kinds == ("cls",) else "json.label"
    assert notes(path) == [f"labels of 12 images from .{field}"]
    # labels of ten and more are sorted as numbers
    built("tar", written(tmp_path / "many.tar", 0, 12, "cls", classes=12), tmp_path / "many")
    assert ShardedDataset.open(tmp_path / "many/train").labels == [str(n) for n in range(12)]
    built("tar", path, tmp_path / "none", labels="none")
    assert ShardedDataset.open(tmp_path / "none/train").labels == []
    assert notes(path, labels="none") == [f"ignored 12 members without an image's file name (.{kinds[0]})"]


@pytest.mark.parametrize("how", ["folder", "pattern", "paths"])
def test_several_tars_are_one_dataset(how: str, tmp_path: Path) -> None:
    files = [written(tmp_path / f"in/imagenet-train-{n:06d}.tar", 5 * n, 5, "cls", classes=7) for n in range(3)]
    given: Any = {
        "folder": tmp_path / "in",
        "pattern": tmp_path / "in/imagenet-train-{000000..000002}.tar",
        "paths": files,
    }[how]
    result = built("tar", given, tmp_path / "out", shuffle=False)
    assert result.counts == {"train": 15}
    assert ShardedDataset.open(tmp_path / "out/train").labels == [str(n) for n in range(7)]
    names = [f"train/{n:06d}.jpg" for n in range(15)]
    assert origins(tmp_path / "out/train") == names
    assert label_of(tmp_path / "out/train") == {name: str(n % 7) for n, name in enumerate(names)}
    assert ShardedDataset.open(tmp_path / "out/train").name == ("in" if how == "folder" else "imagenet-train")
    assert not verify(tmp_path / "out", 0).broken


def test_the_command_takes_several_tars(tmp_path: Path) -> None:
    files = [str(written(tmp_path / f"in/{n}.tar", 5 * n, 5, "cls")) for n in range(2)]
    done = CliRunner().invoke(app, ["shards", "build", "tar", *files, "--out", str(tmp_path / "out"), "--workers", "0"])
    assert done.exit_code == 0, done.output
    assert "note: labels of 10 images from .cls" in done.output
    with pytest.raises(UserError, match=r"folder reads one PATH, got 2, .*tar.* take several files"):
        list_source("folder", [tmp_path / "in", tmp_path / "x"], SourceOptions())


def test_splits_are_those_of_the_tars_names(tmp_path: Path) -> None:
    """Keys need only be unique within a split."""
    for split, first in (("train", 0), ("val", 1)):
        for number in range(2):
            written(tmp_path / f"in/imagenet-{split}-{number:06d}.tar", first + 4 * number, 4, "cls")
    assert built("tar", tmp_path / "in", tmp_path / "out").counts == {"train": 8, "test": 8}
    test = label_of(tmp_path / "out/test")
    assert test == {f"val/{n:06d}.jpg": str(n % 3) for n in range(1, 9)}
    assert "val/ is the test split, for there is no other" in notes(tmp_path / "in")
    one = built("tar", tmp_path / "in", tmp_path / "one", splits="train=imagenet-train")
    assert one.counts == {"train": 8}
    assert any(
        "left out 2 files that --splits does not name" in note
        for note in notes(tmp_path / "in", splits="train=imagenet-train")
    )
    assert built("tar", tmp_path / "in", tmp_path / "all", split="none").counts == {"train": 16}
    written(tmp_path / "in/extra-000000.tar", 90, 2, "cls")
    with pytest.raises(
        UserError,
        match=r"extra-000000\.tar names no split, but imagenet-train-000000\.tar does, .*--splits train=imagenet-train",
    ):
        built("tar", tmp_path / "in", tmp_path / "new")
    splits = "train=imagenet-train,train=extra,test=imagenet-val"
    assert built("tar", tmp_path / "in", tmp_path / "new", splits=splits).counts == {"train": 10, "test": 8}


@pytest.mark.parametrize("kind", ["cls", "json"])
def test_classes_that_only_one_split_has_are_named(kind: str, tmp_path: Path) -> None:
    for split, shift in (("train", 0), ("val", 2)):
        for part in range(2):
            members: dict[str, bytes] = {}
            for n in range(4 * part, 4 * part + 4):
                label = n % 8 // 2 + shift
                members |= {
                    f"{n}.png": image_bytes(n),
                    f"{n}.{kind}": b"%d" % label if kind == "cls" else b'{"label": %d}' % label,
                }
            tar(tmp_path / f"in/{split}-{part}.tar", members)
    found = notes(tmp_path / "in")
    assert "no training image has the labels 4, 5" in found
    assert "no test image has the labels 0, 1" in found
    assert sum(note.startswith("labels of 16 images from .") for note in found) == 1


def test_folders_in_tars_of_splits_are_labels(tmp_path: Path) -> None:
    for split in ("train", "test"):
        tar(
            tmp_path / f"in/{split}.tar",
            {f"{split}/{kind}/{n}.png": image_bytes(n) for n, kind in enumerate(("cat", "dog"))},
        )
    assert built("tar", tmp_path / "in", tmp_path / "out").counts == {"train": 2, "test": 2}
    assert label_of(tmp_path / "out/test") == {"test/cat/0.png": "cat", "test/dog/1.png": "dog"}
    tar(tmp_path / "in/test.tar", {"train/cat/3.png": image_bytes(3)})
    with pytest.raises(
        UserError, match=r"test\.tar holds train/cat/3\.png, which names the train split, but .* says test"
    ):
        built("tar", tmp_path / "in", tmp_path / "new")


def test_label_files_go_with_several_tars(tmp_path: Path) -> None:
    for part in range(2):
        tar(tmp_path / f"in/{('train', 'test')[part]}.tar", {f"{part}{n}.png": image_bytes(n) for n in range(2)})
    table = fill(tmp_path, {"l.csv": b"file,label\n00.png,a\n01.png,b\n10.png,b\n11.png,a\n"}) / "l.csv"
    built("tar", tmp_path / "in", tmp_path / "out", labels=str(table))
    found = label_of(tmp_path / "out/train") | label_of(tmp_path / "out/test")
    assert found == {"train/00.png": "a", "train/01.png": "b", "test/10.png": "b", "test/11.png": "a"}
    tar(tmp_path / "in/test.tar", {"00.png": image_bytes(0)})
    with pytest.raises(UserError, match=r"cannot tell members of two splits .* that have the same name"):
        built("tar", tmp_path / "in", tmp_path / "new", labels=str(table))
    for part in "ab":
        tar(
            tmp_path / f"two/{part}.tar",
            {f"{part}.png": image_bytes(0), "labels.csv": f"file,label\n{part}.png,x".encode()},
        )
    with pytest.raises(UserError, match=r"a\.tar and .*b\.tar both hold labels\.csv: name one file of all labels"):
        built("tar", tmp_path / "two", tmp_path / "new")


WRONG: dict[str, tuple[dict[str, dict[str, bytes]], str]] = {
    "a key in two tars": (
        {"a": {"0.png": b"", "0.cls": b"0"}, "b": {"0.jpg": b"", "0.cls": b"1"}},
        r"0\.jpg is in the archive twice, by its key, in .*a\.tar and in .*b\.tar: keep one",
    ),
    "an image without a label": (
        {"a": {"0.png": b"", "0.cls": b"0", "1.png": b""}},
        r"a\.tar member 1\.png \(of 2 images\) has no label in a \.cls beside it.*--labels none",
    ),
    "a tar without labels": (
        {"a": {"0.png": b"", "0.cls": b"0"}, "b": {"1.png": b"", "2.png": b""}},
        r"b\.tar member 1\.png and 1 more \(of 3 images\) has no label in a \.cls beside it",
    ),
    "two images of a key": (
        {"a": {"0.left.png": b"", "0.right.png": b"", "0.cls": b"0"}},
        r"members 0\.left\.png and 0\.right\.png have one key and one label: .*--image-field left\.png",
    ),
    "an empty label": (
        {"a": {"0.png": b"", "0.cls": b" \n"}},
        r"a\.tar member 0\.cls (must hold one label|is not text in UTF-8)",
    ),
    "a label of bytes": (
        {"a": {"0.png": b"", "0.cls": b"\xff\xfe"}},
        r"member 0\.cls (must hold one label|is not text in UTF-8)",
    ),
    "no label at all": ({"a": {"0.png": b"", "0.cls": b"-1"}}, r"member 0\.cls holds the label -1"),
    "a label of two lines": ({"a": {"0.png": b"", "0.cls": b"1\n2"}}, r"member 0\.cls must hold"),
    "a label that is a list": (
        {"a": {"0.png": b"", "0.json": b'{"label": [1]}'}},
        r"0\.json: its label must be a name or a whole number, got \[1\]",
    ),
    "a label with a fraction": (
        {"a": {"0.png": b"", "0.json": b'{"label": 1.5}'}},
        r"0\.json: its label must be a name or a whole number, got 1\.5",
    ),
    "labels that differ": (
        {"a": {"0.png": b"", "0.cls": b"1", "0.json": b'{"label": "cat"}'}},
        r"0\.png has the label 1 in \.cls and cat in \.json: choose one with --label-field cls",
    ),
    "a label twice": (
        {"a": {"0.png": b"", "0.cls": b"1", "./0.cls": b"2"}},
        r"member 0\.cls is in the archive twice",
    ),
    "labels in a file too": (
        {"a": {"0.png": b"", "0.cls": b"1", "labels.csv": b"file,label\n0.png,x"}},
        r"holds labels in labels\.csv and also beside the images: .*--label-field cls",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_labels_that_are_missing_or_unclear_are_named(case: str, tmp_path: Path) -> None:
    archives, message = WRONG[case]
    for name, members in archives.items():
        tar(tmp_path / f"in/{name}.tar", {key: content or image_bytes(len(key)) for key, content in members.items()})
    with pytest.raises(UserError, match=message) as refused:
        built("tar", tmp_path / "in", tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_fields_settle_what_is_unclear(tmp_path: Path) -> None:
    members = {}
    for number in range(4):
        key = f"a/{number}"
        described = {"label": "xy"[number // 2], "kind": number % 3, "none": None}
        members |= {
            f"{key}.left.png": image_bytes(number),
            f"{key}.right.png": image_bytes(9),
            f"{key}.cls": b"%d" % (number % 2),
            f"{key}.json": json.dumps(described).encode(),
        }
    path = tar(tmp_path / "in.tar", members)
    for name, (field, expected) in enumerate(
        {"cls": "0101", "json": "xxyy", "json.label": "xxyy", ".json.kind": "0120"}.items()
    ):
        built("tar", path, tmp_path / f"{name}", image_field="left.png", label_field=(field,))
        assert label_of(tmp_path / f"{name}/train") == {f"a/{n}.left.png": expected[n] for n in range(4)}
    built("tar", path, tmp_path / "both", image_field="left.png", label_field=("cls", "json.label"))
    dataset = ShardedDataset.open(tmp_path / "both/train")
    assert (dataset.label_sizes, dataset.labels[1]) == ((2, 2), "class=0, label=y")
    for options, message in (
        ({"label_field": ("json.none",)}, r"--label-field json\.none: no member holds such labels"),
        ({"image_field": "up.png"}, r"--image-field up\.png: .* images that end in left\.png, right\.png"),
        ({"label_field": ("cls",), "labels": "none"}, r"--label-field and --labels none contradict"),
    ):
        with pytest.raises(UserError, match=message):
            built("tar", path, tmp_path / "new", **options)


def test_keys_with_dots_have_their_own_labels(tmp_path: Path) -> None:
    members = {f"{stem}.{ending}": image_bytes(n) if ending == "png" else b"%d" % n
               for n, stem in enumerate(("v1.0", "v1.1", "v2")) for ending in ("png", "cls")}  # fmt: skip
    built("tar", tar(tmp_path / "in.tar", members), tmp_path / "out")
    assert label_of(tmp_path / "out/train") == {"v1.0.png": "0", "v1.1.png": "1", "v2.png": "2"}


def test_what_macos_and_other_tools_add_is_no_label(tmp_path: Path) -> None:
    members = {
        "0.png": image_bytes(0),
        "0.cls": b"1",
        "._0.cls": b"\0\5\x16\7",
        "0.txt": b"a cat",
        "info.json": b"{",
        "__MACOSX/x.tar": b"x",
    }
    path = tar(tmp_path / "in.tar", members)
    built("tar", path, tmp_path / "out")
    assert label_of(tmp_path / "out/train") == {"0.png": "1"}
    assert "ignored 1 member without an image's file name (.txt)" in notes(path)


def test_our_own_shards_keep_their_labels_and_splits(tmp_path: Path) -> None:
    files = {
        f"{split}/{kind}/{n}.png": image_bytes(3 * n + len(kind))
        for split in ("train", "test")
        for kind in ("cat", "horse")
        for n in range(3)
    }
    built("folder", fill(tmp_path / "in", files), tmp_path / "data")
    built("tar", tmp_path / "data", tmp_path / "again")
    for split in ("train", "test"):
        before, after = (
            sorted((s.image, s.label) for s in samples(tmp_path / name / split)) for name in ("data", "again")
        )
        assert before == after
        assert ShardedDataset.open(tmp_path / "again" / split).labels == ["cat", "horse"]
    built("tar", tmp_path / "data/train/shard-000000.tar", tmp_path / "one")
    assert ShardedDataset.open(tmp_path / "one/train").labels == ["cat", "horse"]
    # without the description the labels are the numbers in the shards
    (tmp_path / "data/train/dataset.json").unlink()
    built("tar", tmp_path / "data/train/shard-000000.tar", tmp_path / "numbers")
    assert ShardedDataset.open(tmp_path / "numbers/train").labels == ["0", "1"]


def imagenet(path: Path, classes: tuple[str, ...] = ("n01440764", "n01443537")) -> Path:
    """A tar of tars, as image-net.org gives it."""
    inner = {
        f"{c}.tar": tar_bytes({f"{c}_{n}.JPEG": image_bytes(10 * k + n, kind="JPEG") for n in range(3)})
        for k, c in enumerate(classes)
    }
    return tar(path, inner)


@pytest.mark.slow
def test_a_tar_of_tars_has_its_inner_tars_as_classes(tmp_path: Path) -> None:
    path = imagenet(tmp_path / "ILSVRC2012_img_train.tar")
    built("tar", path, tmp_path / "out", workers=1)
    expected = {f"{c}/{c}_{n}.JPEG": c for c in ("n01440764", "n01443537") for n in range(3)}
    assert label_of(tmp_path / "out/train") == expected
    found = {s.origin["name"]: s.image for s in samples(tmp_path / "out/train") if s.origin}
    assert found == {name: image_bytes(10 * (i // 3) + i % 3, kind="JPEG") for i, name in enumerate(expected)}
    assert contents(tmp_path).keys() >= {"ILSVRC2012_img_train.tar"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ILSVRC2012_img_train.tar", "out"]
    # ImageNet's validation images are in no class
    tar(tmp_path / "ILSVRC2012_img_val.tar", {"ILSVRC2012_val_00000001.JPEG": image_bytes(1, kind="JPEG")})
    both = [path, tmp_path / "ILSVRC2012_img_val.tar"]
    with pytest.raises(UserError, match=r"ILSVRC2012_val_00000001\.JPEG is in no class folder"):
        built("tar", both, tmp_path / "new")
    assert built("tar", both, tmp_path / "new", splits="train=ILSVRC2012_img_train").counts == {"train": 6}


def test_damage_in_an_inner_tar_is_named(tmp_path: Path) -> None:
    whole = tar_bytes({f"{n}.JPEG": image_bytes(n, kind="JPEG") for n in range(3)})
    flipped = bytearray(whole)
    second = 512 + -(-len(image_bytes(0, kind="JPEG")) // 512) * 512
    flipped[second] ^= 1
    for number, (content, message) in enumerate((
        (whole[:second], r"in\.tar member n1\.tar is damaged or cut off at byte"),
        (whole[: second - 600], r"in\.tar member n1\.tar member 0\.JPEG is cut off \d+ bytes before its end"),
        (bytes(flipped), r"in\.tar member n1\.tar is damaged or cut off at byte \d+"),
        (b"", r"in\.tar member n1\.tar cannot be read as a tar file"),
        (b"\x1f\x8b" + bytes(100), r"in\.tar member n1\.tar is compressed, .* gunzip"),
        (b"nonsense" * 100, r"in\.tar member n1\.tar cannot be read as a tar file"),
    )):  # fmt: skip
        path = tar(tmp_path / f"{number}/in.tar", {"n0.tar": whole, "n1.tar": content})
        with pytest.raises(UserError, match=message) as refused:
            built("tar", path, tmp_path / "out", on_error="skip")
        assert "\n" not in str(refused.value)
    evil = {"../evil.JPEG": image_bytes(1), "ok.JPEG": image_bytes(2)}
    path = tar(tmp_path / "in.tar", {"n0.tar": tar_bytes(evil), "n1.tar": tar_bytes({"n2.tar": whole})})
    with pytest.raises(UserError, match=r"n0/\.\./evil\.JPEG has \.\. in its name"):
        built("tar", path, tmp_path / "out")
    result = built("tar", path, tmp_path / "out", on_error="skip")
    assert result.counts == {"train": 1}
    assert {p.name: p.reason for p in result.skipped}[
        "n1/n2.tar"
    ] == "is a tar within a tar within a tar: unpack it first"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a-{0..2}.tar", ["a-0.tar", "a-1.tar", "a-2.tar"]),
        ("a-{08..10}.tar", ["a-08.tar", "a-09.tar", "a-10.tar"]),
        ("a-{2..1}.tar", ["a-2.tar", "a-1.tar"]),
        ("{a,b}-{0..1}.tar", ["a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar"]),
        ("{a,b{0,1}}.tar", ["a.tar", "b0.tar", "a.tar", "b1.tar"]),
        ("plain.tar", ["plain.tar"]),
    ],
)
def test_patterns_stand_for_files_as_in_a_shell(pattern: str, found: list[str]) -> None:
    assert sorted(map(str, expand_braces(Path(pattern)))) == sorted(found)


@pytest.mark.slow
def test_what_is_no_tar_is_named(tmp_path: Path) -> None:
    written(tmp_path / "in/a-0.tar", 0, 3, "cls")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    fill(tmp_path, {"lfs/x.tar": pointer, "empty/x.txt": b"", "mixed/x.tar": b"", "mixed/1.png": image_bytes(1)})
    (tmp_path / "link").mkdir()
    (tmp_path / "link/a.tar").symlink_to(tmp_path / "in/a-0.tar")
    for given, message in (
        ([], r"PATH is missing"),
        ([tmp_path / "in/a-{0..3}.tar"], r"a-1\.tar is not a file \(of .*a-\{0\.\.3\}\.tar\)"),
        ([tmp_path / "in/a-{0..99999999}.tar"], r"stands for more than 1000000 files"),
        ([tmp_path / "in/{0..9}{0..9}{0..9}{0..9}{0..9}{0..9}{0..9}"], r"stands for more than 1000000 files"),
        ([tmp_path / "in/a-{x}.tar"], r"\{x\} is no pattern such as"),
        ([tmp_path / "in/a-0.tar"] * 2, r"a-0\.tar is given twice"),
        ([tmp_path / "in/a-0.tar", tmp_path / "in"], r"in is not a file: name \.tar files, or one folder"),
        ([tmp_path / "lfs"], r"x\.tar is a Git LFS pointer, not the file itself: fetch it with git lfs pull"),
        ([tmp_path / "empty"], r"empty holds no \.tar files"),
        ([tmp_path / "mixed"], r"holds \.tar files and also images, such as 1\.png"),
        ([tmp_path / "link"], r"a\.tar is a symbolic link that leads out of the folder: .*--follow-symlinks"),
    ):
        with pytest.raises(UserError, match=message) as refused:
            built("tar", given, tmp_path / "out")
        assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match=r"in holds no images, but files that tar can build: name a folder .* or that"):
        built("folder", tmp_path / "in", tmp_path / "out")
    assert built("tar", tmp_path / "link", tmp_path / "out", follow_symlinks=True).counts == {"train": 3}
