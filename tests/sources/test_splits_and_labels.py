"""What decides splits and labels is read, or refused by name with the option that settles it."""

import io
import json
import unicodedata
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from layouts import built, fill, image_bytes, origins, samples

from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.sources.split_folders import split_of_folder


def tree(root: Path, names: Sequence[str]) -> Path:
    return fill(root, {name: image_bytes(number) for number, name in enumerate(names)})


def label_of(folder: Path) -> dict[str, str]:
    """The label of each image of a split."""
    names = ShardedDataset.open(folder).labels
    return {str(s.origin["name"]): names[s.label] for s in samples(folder) if s.origin and s.label is not None}


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("train", "train"), ("Train", "train"), ("TRAIN", "train"), ("Training", "train"), ("training_set", "train"),
        ("trainingset", "train"), ("seg_train", "train"), ("train2017", "train"), ("train_images", "train"),
        ("Train-Data", "train"), ("val", "val"), ("VALID", "val"), ("validation", "val"), ("dev", "val"),
        ("eval", "val"), ("val2017", "val"), ("Validation Set", "val"), ("test", "test"), ("Testing", "test"),
        ("test_set", "test"), ("seg_test", "test"), ("test1", "test"), ("testset", "test"),
        ("trains", ""), ("bullet_train", ""), ("cat", ""), ("testament", ""), ("protest", ""), ("images", ""), ("", ""),
        ("2017", ""), ("train_test", ""),
    ],
)  # fmt: skip
def test_folders_are_splits_by_their_names(folder: str, split: str) -> None:
    assert split_of_folder(folder) == split


@pytest.mark.parametrize(
    ("train", "test"), [("Training", "Testing"), ("TRAIN", "TEST"), ("seg_train", "seg_test"), ("train2017", "dev")]
)
def test_other_names_of_splits_keep_the_classes(train: str, test: str, tmp_path: Path) -> None:
    names = [f"mri/{folder}/{kind}/{n}.png" for folder in (train, test) for kind in ("glioma", "other") for n in "01"]
    result = built("folder", tree(tmp_path / "in", names), tmp_path / "out")
    assert result.counts == {"train": 4, "test": 4}
    for split, folder in (("train", train), ("test", test)):
        found = label_of(tmp_path / "out" / split)
        assert found == {name: name.split("/")[2] for name in names if name.split("/")[1] == folder}


def test_two_folders_of_one_split_are_not_joined_in_silence(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", ["train/a/0.png", "training/a/1.png", "test/b/2.png"])
    with pytest.raises(
        UserError,
        match=r"train/ and training/, which both name the train split: .*--splits test=test,train=train,train=training",
    ):
        built("folder", root, tmp_path / "out")
    assert built("folder", root, tmp_path / "out", splits="train=train, train=training, test=test").counts == {
        "train": 2, "test": 1,
    }  # fmt: skip


def test_folders_that_hold_the_same_classes_are_refused_until_they_are_named(tmp_path: Path) -> None:
    names = [f"{folder}/{kind}/{n}.png" for folder in ("part1", "part2") for kind in ("cat", "dog") for n in "01"]
    root = tree(tmp_path / "in", names)
    with pytest.raises(
        UserError,
        match=r"part1/ and part2/ hold folders of the same names \(cat, dog\), as splits do: .*"
        r"--splits train=part1,test=part2, or .*--split none",
    ):
        built("folder", root, tmp_path / "out")
    built("folder", root, tmp_path / "a", splits="train=part2,test=part1")
    assert label_of(tmp_path / "a/train") == {name: name.split("/")[1] for name in names if name.startswith("part2")}
    assert built("folder", root, tmp_path / "b", split="none").counts == {"train": 8}
    assert ShardedDataset.open(tmp_path / "b/train").labels == ["part1", "part2"]


def test_a_folder_that_speaks_of_training_is_proposed_for_it(tmp_path: Path) -> None:
    names = [f"{folder}/{kind}/0.png" for folder in ("Testdaten", "Trainingsdaten") for kind in ("cat", "dog")]
    with pytest.raises(
        UserError, match=r"--splits train=Trainingsdaten,test=Testdaten, or .* classes with --split none"
    ):
        built("folder", tree(tmp_path / "in", names), tmp_path / "out")


def test_classes_that_hold_different_folders_are_classes(tmp_path: Path) -> None:
    built(
        "folder", tree(tmp_path / "in", ["cat/a/0.png", "cat/b/1.png", "dog/c/2.png", "dog/a/3.png"]), tmp_path / "out"
    )
    assert ShardedDataset.open(tmp_path / "out/train").labels == ["cat", "dog"]
    # a single folder in each says nothing
    built("folder", tree(tmp_path / "one", ["cat/images/0.png", "dog/images/1.png"]), tmp_path / "other")
    assert ShardedDataset.open(tmp_path / "other/train").labels == ["cat", "dog"]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ("train=Trainin", r"--splits names the folder Trainin, but .*in holds A, B"),
        ("A=train", r"--splits A=train is not allowed: each part must be train=FOLDER"),
        ("train", r"--splits train is not allowed"),
        ("train=", r"--splits train= is not allowed"),
        ("train=A,test=A", r"--splits names the folder A twice"),
    ],
)
def test_wrong_splits_are_named(splits: str, message: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "in", ["A/x/0.png", "A/y/1.png", "B/z/2.png"])
    with pytest.raises(UserError, match=message) as refused:
        built("folder", root, tmp_path / "out", splits=splits)
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="--splits and --split none contradict each other"):
        built("folder", root, tmp_path / "out", splits="train=A", split="none")


def test_a_stray_image_does_not_erase_all_labels(tmp_path: Path) -> None:
    names = ["cat/0.png", "cat/1.png", "dog/2.png", "preview.png"]
    root = tree(tmp_path / "in", names)
    with pytest.raises(
        UserError,
        match=r"preview\.png is in no class folder, but others are, such as cat/0\.png: .*--labels FILE.*--labels none",
    ):
        built("folder", root, tmp_path / "out")
    built("folder", root, tmp_path / "out", labels="none")
    assert ShardedDataset.open(tmp_path / "out/train").labels == []


def test_a_flat_split_does_not_erase_the_labels_of_another(tmp_path: Path) -> None:
    names = ["train/n1/0.png", "train/n2/1.png", "val/ILSVRC2012_val_0.png", "val/ILSVRC2012_val_1.png"]
    root = tree(tmp_path / "in", names)
    with pytest.raises(
        UserError,
        match=r"val/ILSVRC2012_val_0\.png and 1 more images are in no class folder.*--splits train=train, label",
    ):
        built("folder", root, tmp_path / "out")
    result = built("folder", root, tmp_path / "out", splits="train=train")
    assert result.counts == {"train": 2}
    assert label_of(tmp_path / "out/train") == {"train/n1/0.png": "n1", "train/n2/1.png": "n2"}


def test_labels_without_training_images_and_their_origin_are_named(tmp_path: Path) -> None:
    from latentscale.sources.registry import list_source
    from latentscale.sources.source_options import SourceOptions

    root = tree(tmp_path / "in", ["train/cat/0.png", "train/dog/1.png", "test/cat/2.png", "test/fox/3.png"])
    notes = list_source("folder", root, SourceOptions()).notes
    assert notes == [
        "labels of 4 images from the folders' names",
        "no training image has the label fox",
        "no test image has the label dog",
    ]
    fill(root, {"labels.csv": b"file,kind\n" + b"".join(f"{split}/{n}.png,x\n".encode() for split, n in (
        ("train/cat", 0), ("train/dog", 1), ("test/cat", 2), ("test/fox", 3), ("test/gone", 4)))})  # fmt: skip
    notes = list_source("folder", root, SourceOptions()).notes
    assert notes[-1] == f"labels of 4 images from {root}/labels.csv"
    assert notes[-2].endswith("labels.csv also names 1 image not there, such as test/gone/4.png")


CSV = {
    "spaces": "file,label\n0.png,cat\n1.png, cat\n2.png,dog \n 3.png ,dog\n",
    "semicolons": "file;label\n0.png;cat\n1.png;cat\n2.png;dog\n3.png;dog\n",
    "tabs": "file\tlabel\n0.png\tcat\n1.png\tcat\n2.png\tdog\n3.png\tdog\n",
    "Excel's mark": "\ufefffile;label\r\n0.png;cat\r\n1.png;cat\r\n2.png;dog\r\n3.png;dog\r\n",
    "pandas' index": ",file,label\n0,0.png,cat\n1,1.png,cat\n2,2.png,dog\n3,3.png,dog\n",
    "pandas' named index": "Unnamed: 0,file,label\n0,0.png,cat\n1,1.png,cat\n2,2.png,dog\n3,3.png,dog\n",
    "image_id": "image_id,breed\n0.png,cat\n1.png,cat\n2.png,dog\n3.png,dog\n",
    "id": "ID,Label\n0.png,cat\n1.png,cat\n2.png,dog\n3.png,dog\n",
    "the file last": "label,file\ncat,0.png\ncat,1.png\ndog,2.png\ndog,3.png\n",
    "without suffixes": "id,label\n0,cat\n1,cat\n2,dog\n3,dog\n",
    "other cases": "file,label\n0.PNG,cat\n1.Png,cat\n2.png,dog\n3.PNG,dog\n",
    "backslashes": "file,label\n.\\0.png,cat\n1.png,cat\n2.png,dog\n3.png,dog\n",
    "quotes and empty lines": '"file","label"\n\n"0.png","cat"\n"1.png","cat"\n,\n"2.png","dog"\n"3.png","dog"\n',
    "more images": "file,label\n0.png,cat\n1.png,cat\n2.png,dog\n3.png,dog\n4.png,fox\n",
}


@pytest.mark.parametrize("text", CSV.values(), ids=CSV)
def test_csv_as_other_programs_write_it(text: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "in", [f"{n}.png" for n in range(4)])
    table = fill(tmp_path, {"l.csv": text.encode()}) / "l.csv"
    built("folder", root, tmp_path / "out", labels=str(table))
    assert label_of(tmp_path / "out/train") == {"0.png": "cat", "1.png": "cat", "2.png": "dog", "3.png": "dog"}
    # as Excel's "Unicode text"
    table.write_bytes(text.removeprefix("\ufeff").encode("utf-16"))
    built("folder", root, tmp_path / "again", labels=str(table))
    assert label_of(tmp_path / "again/train") == label_of(tmp_path / "out/train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\n0.png,cat\n1.png,\n", r"'1\.png' has no label"),
        ("file,label\n0.png,3.0\n1.png,NaN\n", r"'1\.png' has no label"),
        ("file,kind,breed\n0.png,cat,nan\n1.png,dog,pug\n", r"'0\.png' has no breed"),
        ("file,label\n0.png,cat\n,dog\n", r"a row with the label 'dog' names no image"),
        ("picture,label\n0.png,cat\n1.png,dog\n", r"its first line must be titles, .*file, filename.*'picture,label'"),
        (
            "file label\n0.png cat\n",
            r"its first line must be titles, such as file,label or file;label, but is 'file label'",
        ),
        ("file\n0.png\n1.png\n", r"its first line must be titles"),
        ("", r"its first line must be titles.*is missing"),
        ("file,label,label\n0.png,1,2\n1.png,1,2\n", r"two columns have the title 'label'"),
        ('file,label\n"0.png,cat\n', r"line \d is not CSV"),
    ],
)
def test_what_is_wrong_in_a_csv_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "in", ["0.png", "1.png"])
    table = fill(tmp_path, {"l.csv": text.encode()}) / "l.csv"
    with pytest.raises(UserError, match=message) as refused:
        built("folder", root, tmp_path / "out", labels=str(table))
    assert "l.csv" in str(refused.value)
    assert "--labels none" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("images", "rows", "message"),
    [
        (
            ["a.png", "b.png"],
            ["A.png", "A.PNG", "b.png"],
            r"names A\.png and A\.PNG, which may both be a\.png: keep one",
        ),
        (["a.png", "a.jpg"], ["a"], r"names a, which may be a\.jpg or a\.png: write names with their suffixes"),
        (["a.png", "b.png"], ["a.jpg", "b.png"], r"has no label for a\.png .*; it names a\.jpg, which is not there"),
    ],
)
def test_names_that_cannot_be_told_apart_are_named(
    images: Sequence[str], rows: Sequence[str], message: str, tmp_path: Path
) -> None:
    root = tree(tmp_path / "in", images)
    table = fill(tmp_path, {"l.csv": ("file,label\n" + "".join(f"{row},x\n" for row in rows)).encode()}) / "l.csv"
    with pytest.raises(UserError, match=message):
        built("folder", root, tmp_path / "out", labels=str(table))


def test_accents_may_be_composed_or_not(tmp_path: Path) -> None:
    name = "caf\u00e9.png"
    root = tree(tmp_path / "in", [unicodedata.normalize("NFD", name), "b.png"])
    table = fill(tmp_path, {"l.json": json.dumps({name: "cup", "b.png": "b"}).encode()}) / "l.json"
    built("folder", root, tmp_path / "out", labels=str(table))
    assert set(label_of(tmp_path / "out/train").values()) == {"cup", "b"}


def zipped(path: Path, files: dict[str, bytes], windows: bool = False) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo("x")
            info.create_system = 0 if windows else 3
            info.filename = name
            archive.writestr(info, content)
    return path


def test_a_zip_made_on_windows_has_folders(tmp_path: Path) -> None:
    names = [f"{'train' if n % 2 else 'test'}\\{'cat' if n < 4 else 'dog'}\\{n}.png" for n in range(8)]
    files = {"__MACOSX\\cat\\1.png": b"", **{name: image_bytes(n) for n, name in enumerate(names)}}
    result = built("zip", zipped(tmp_path / "pets.zip", files, windows=True), tmp_path / "out")
    assert result.counts == {"train": 4, "test": 4}
    expected = {name.replace("\\", "/"): name.split("\\")[1] for name in names}
    assert label_of(tmp_path / "out/train") | label_of(tmp_path / "out/test") == expected
    files = {"..\\evil.png": image_bytes(1), "C:\\cat\\1.png": image_bytes(2), "cat\\2.png": image_bytes(3)}
    with pytest.raises(UserError, match=r"\.\./evil\.png has \.\. in its name|C:/cat/1\.png"):
        built("zip", zipped(tmp_path / "evil.zip", files, windows=True), tmp_path / "bad")


NAMES = [f"00000/img{n:08d}.png" for n in range(4)]


@pytest.mark.parametrize(
    "described",
    [
        {"labels": [[name.replace("/", "\\"), n % 2] for n, name in enumerate(NAMES)]},
        {"labels": [[name, n % 2] for n, name in enumerate(NAMES)], "name": "pets", "licence": None},
        [[name, n % 2] for n, name in enumerate(NAMES)],
        [{"file_name": name, "label": n % 2} for n, name in enumerate(NAMES)],
        {"labels": {name: n % 2 for n, name in enumerate(NAMES)}},
        {"labels": [{"file": name, "label": n % 2} for n, name in enumerate(NAMES)], "version": 2},
        {name: float(n % 2) for n, name in enumerate(NAMES)},
    ],
)
def test_stylegans_labels_as_other_tools_write_them(described: object, tmp_path: Path) -> None:
    files = {name: image_bytes(n) for n, name in enumerate(NAMES)} | {"dataset.json": json.dumps(described).encode()}
    built("zip", zipped(tmp_path / "a.zip", files), tmp_path / "out")
    assert label_of(tmp_path / "out/train") == {name: str(n % 2) for n, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": [[name, [n % 2, 1.0]] for n, name in enumerate(NAMES)]}, r"has the label 1\.0, but labels must be"),
        (
            {"labels": [[name, True] for name in NAMES]},
            r"has the label true, but labels must be names or whole numbers",
        ),
        ({"labels": dict.fromkeys(NAMES)}, r"'00000/img00000000\.png' has no label"),
        (dict.fromkeys(NAMES, 0.5), r"has the label 0\.5, but labels must be names or whole numbers"),
        ({name: float("nan") for name in NAMES}, r"'00000/img00000000\.png' has no label"),
        (
            {**dict.fromkeys(NAMES, 1), "labels": None},
            r"has both labels and '00000/img00000000\.png' as keys: leave one of the two out",
        ),
        (
            {**dict.fromkeys(NAMES, 1), "labels": [["x.png", 2]]},
            r"has both labels and '00000/img00000000\.png' as keys",
        ),
        ({"labels": ["cat", "dog"]}, r"must be an object such as .*; not a list that begins with 'cat'"),
        ({"labels": "cat"}, r"must be an object such as .*; not 'cat'"),
        ({name: [0] * (1 + (n == 2)) for n, name in enumerate(NAMES)}, r"does not have 1 labels, as the first image"),
        (
            {name: {"a": 1} if n else {"b": 1} for n, name in enumerate(NAMES)},
            r"does not have the labels b of the first",
        ),
        (5, r"must be an object such as"),
        ("text", r"must be an object such as"),
        ([1, 2, 3], r"must be an object such as"),
        ([[1, 2, 3]], r"must be an object such as"),
        ([[None, 1]], r"null is not an image's name"),
        (b"{", r"it is not JSON"),
        (b"[" * 100_000, r"it is nested too deeply"),
        (b"\xff{}", r"byte 0 is not UTF-8"),
    ],
)
def test_what_is_wrong_in_a_json_file_is_named(content: object, message: str, tmp_path: Path) -> None:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    files = {name: image_bytes(n) for n, name in enumerate(NAMES)} | {"dataset.json": text}
    with pytest.raises(UserError, match=message) as refused:
        built("zip", zipped(tmp_path / "a.zip", files), tmp_path / "out")
    assert "a.zip member dataset.json is not a label file" in str(refused.value)
    assert "--labels none" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert built("zip", tmp_path / "a.zip", tmp_path / "out", labels="none").counts == {"train": 4}


def test_whole_numbers_that_became_floats_are_whole_numbers(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", [f"{n}.png" for n in range(3)])
    for text, labels in (
        ("file,label\n0.png,2.0\n1.png,10.\n2.png,2\n", ["2", "10", "2"]),
        ("file,label\n0.png,2.0\n1.png,10.5\n2.png,2\n", ["2.0", "10.5", "2"]),
        ("file,label\n0.png,v2.0\n1.png,1.0\n2.png,1.0\n", ["v2.0", "1.0", "1.0"]),
    ):
        (tmp_path / "l.csv").write_text(text)
        out = tmp_path / labels[0] / labels[1]
        built("folder", root, out, labels=str(tmp_path / "l.csv"))
        assert [label_of(out / "train")[f"{n}.png"] for n in range(3)] == labels


def test_two_label_files_of_a_folder_must_agree(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", [f"{n}.png" for n in range(3)])
    first = "file,label\n0.png,cat\n1.png,dog\n2.png,cat\n"
    fill(root, {"labels.csv": first.encode()})
    for other, content in {
        "metadata.csv": "file_name,label\n0.png,cat\n1.png,dog\n2.png,dog\n",
        "labels.json": '{"0.png": 1, "1.png": 2, "2.png": 3}',
        "dataset.json": '{"labels": null}',
        "metadata.jsonl": '{"file_name": "0.png", "label": 0}\n{"file_name": "1.png", "label": 0}\n'
        '{"file_name": "2.png", "label": 0}\n',
    }.items():
        (root / other).write_text(content)
        with pytest.raises(UserError, match=r"give the images different labels: name the right one with --labels FILE"):
            built("folder", root, tmp_path / "out")
        built("folder", root, tmp_path / other, labels=str(root / "labels.csv"))
        assert label_of(tmp_path / other / "train") == {"0.png": "cat", "1.png": "dog", "2.png": "cat"}
        (root / other).unlink()
    # a second file that is damaged or lacks an image, and one of another tool
    for content in ("file_name,label\n0.png,cat\n", "file_name,label\n0.png\n"):
        (root / "metadata.csv").write_text(content)
        with pytest.raises(UserError, match=r"metadata\.csv .*; or name .*labels\.csv by --labels FILE"):
            built("folder", root, tmp_path / "out")
    (root / "metadata.csv").unlink()
    for content in ('{"channel_names": {"0": "CT"}, "numTraining": 3}', "no JSON", '{"labels": [["9.png", 1]]}'):
        (root / "dataset.json").write_text(content)
        built("folder", root, tmp_path / f"beside {len(content)}")
        assert label_of(tmp_path / f"beside {len(content)}/train") == {"0.png": "cat", "1.png": "dog", "2.png": "cat"}
    # the same classes by other names, and a file that has no labels
    (root / "dataset.json").write_text('{"labels": [["0.png", 7], ["1.png", 3], ["2.png", 7]]}')
    (root / "metadata.csv").write_text("file_name,text\n0.png,a cat\n")
    built("folder", root, tmp_path / "out")
    assert label_of(tmp_path / "out/train") == {"0.png": "cat", "1.png": "dog", "2.png": "cat"}


def test_two_label_files_of_a_split_must_agree(tmp_path: Path) -> None:
    names = [f"{split}/{n}.png" for split in ("train", "test") for n in range(2)]
    root = tree(tmp_path / "in", names)
    for split in ("train", "test"):
        fill(root, {f"{split}/labels.csv": b"file,label\n0.png,cat\n1.png,dog\n"})
    (root / "test" / "metadata.csv").write_text("file_name,label\n0.png,dog\n1.png,dog\n")
    with pytest.raises(UserError, match=r"test/labels\.csv and .*test/metadata\.csv give the images different labels"):
        built("folder", root, tmp_path / "out")
    (root / "test" / "metadata.csv").write_text("file_name,label\n0.png,cat\n1.png,dog\n")
    built("folder", root, tmp_path / "out")
    assert label_of(tmp_path / "out/test") == {"test/0.png": "cat", "test/1.png": "dog"}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_of_hugging_faces_image_folders(kind: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "in", [f"{split}/{n:04d}.png" for split in ("train", "test") for n in range(4)])
    for split in ("train", "test"):
        rows = [(f"{n:04d}.png", n % 2, f"a picture of {n}, in {split}") for n in range(4)]
        text = "file_name,label,text\n" + "".join(f'{name},{label},"{caption}"\n' for name, label, caption in rows)
        if kind == "jsonl":
            objects = [dict(zip(("file_name", "label", "text"), row, strict=True)) for row in rows]
            text = "\n".join(map(json.dumps, objects)) + "\n"
        fill(root, {f"{split}/metadata.{kind}": text.encode()})
    built("folder", root, tmp_path / "out")
    for split in ("train", "test"):
        assert label_of(tmp_path / "out" / split) == {f"{split}/{n:04d}.png": str(n % 2) for n in range(4)}
    # captions alone are no labels
    for split in ("train", "test"):
        (root / split / f"metadata.{kind}").write_text(
            "file_name,text\n0000.png,x\n" if kind == "csv" else '{"file_name": "0000.png", "text": "x"}\n'
        )
    built("folder", root, tmp_path / "captions")
    assert ShardedDataset.open(tmp_path / "captions/train").labels == []


def test_label_files_of_two_folders_must_agree(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", ["train/0.png", "test/1.png"])
    fill(root, {"train/labels.csv": b"file,kind\n0.png,a\n", "test/labels.csv": b"file,breed\n1.png,b\n"})
    with pytest.raises(UserError, match=r"train/labels\.csv has the labels kind, but .*test/labels\.csv has breed"):
        built("folder", root, tmp_path / "out")
    fill(root, {"test/labels.csv": b"file,kind\n1.png,a\n"})
    built("folder", root, tmp_path / "out")
    assert label_of(tmp_path / "out/test") == {"test/1.png": "a"}
    assert origins(tmp_path / "out/train") == ["train/0.png"]
    # one file for a part of the images is not taken for all
    (root / "test/labels.csv").unlink()
    with pytest.raises(UserError, match=r"a label file, train/labels\.csv, that is not in the images' top folder"):
        built("folder", root, tmp_path / "new")


def test_a_file_of_records_may_be_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", ["0.png", "1.png"])
    lines = io.StringIO()
    for number in range(2):
        lines.write(json.dumps({"image": f"{number}.png", "kind": "ab"[number]}) + "\n")
    table = fill(tmp_path, {"my.jsonl": lines.getvalue().encode()}) / "my.jsonl"
    built("folder", root, tmp_path / "out", labels=str(table))
    assert label_of(tmp_path / "out/train") == {"0.png": "a", "1.png": "b"}
    table.write_text(lines.getvalue() + "[1]\n")
    with pytest.raises(UserError, match=r"my\.jsonl is not a label file \(line 3 must be an object such as"):
        built("folder", root, tmp_path / "out2", labels=str(table))


def test_every_file_that_labels_are_from_is_named_with_their_number(tmp_path: Path) -> None:
    from latentscale.sources.registry import list_source
    from latentscale.sources.source_options import SourceOptions

    root = tree(
        tmp_path / "in", [f"{split}/{n}.png" for split, count in (("train", 5), ("test", 2)) for n in range(count)]
    )
    (root / "train/metadata.csv").write_text("file_name,label\n" + "".join(f"{n}.png,{n % 2}\n" for n in range(5)))
    (root / "test/metadata.jsonl").write_text("".join(f'{{"file_name": "{n}.png", "label": 0}}\n' for n in range(2)))
    notes = list_source("folder", root, SourceOptions()).notes
    assert notes == [
        f"labels of 7 images from {root}/test/metadata.jsonl (2) and {root}/train/metadata.csv (5)",
        "no test image has the label 1",
    ]


def test_of_many_files_of_labels_the_first_are_named() -> None:
    from latentscale.sources.listing import origins_text

    assert origins_text({"a": 3}) == "a"
    assert origins_text({"a": 3, "b": 1}) == "a (3) and b (1)"
    assert origins_text({name: n for n, name in enumerate("abcdefg")}) == (
        "a (0), b (1), c (2), d (3), e (4) and 2 more (11)"
    )
