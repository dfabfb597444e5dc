"""Tar files as WebDataset has them: several at once, and labels in members beside the images."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import webdataset
from layouts import built, image_bytes, origins, samples

from latentscale.data.own_images import build_own_images
from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset


def written(path: Path, first: int, count: int = 3, **beside: object) -> Path:
    """Images by WebDataset's own writer, with a further member each whose content ``beside`` makes of the number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as writer:
        for number in range(first, first + count):
            more = {kind: make(number) for kind, make in beside.items()}  # type: ignore[operator]
            writer.write({"__key__": f"{number:07d}", "png": image_bytes(number), **more})
    return path


def label_of(folder: Path) -> dict[str, str]:
    names = ShardedDataset.open(folder).labels
    return {str(s.origin["name"]): names[s.label] for s in samples(folder) if s.origin and s.label is not None}


def cls(number: int) -> int:
    return number % 3


@pytest.mark.parametrize(
    ("kind", "make", "expected"),
    [
        ("cls", cls, ["0", "1", "2"]),
        ("json", lambda number: {"label": f"kind {number % 2}", "width": 8}, ["kind 0", "kind 1"]),
        ("json", lambda number: {"label": number % 3, "caption": "x"}, ["0", "1", "2"]),
    ],
)
def test_labels_beside_the_images_are_read(kind: str, make: object, expected: list[str], tmp_path: Path) -> None:
    archive = written(tmp_path / "a.tar", 0, 6, **{kind: make}, txt=str)
    built("tar", archive, tmp_path / "out")
    assert ShardedDataset.open(tmp_path / "out/train").labels == expected
    found = label_of(tmp_path / "out/train")
    assert len(found) == 6
    for name, label in found.items():
        value = make(int(Path(name).stem))  # type: ignore[operator]
        assert label == str(value["label"] if kind == "json" else value)
    built("tar", archive, tmp_path / "none", labels="none")
    assert ShardedDataset.open(tmp_path / "none/train").labels == []


@pytest.mark.slow
@pytest.mark.parametrize("how", ["folder", "pattern"])
def test_several_files_are_one_dataset(how: str, tmp_path: Path) -> None:
    for number in range(3):
        written(tmp_path / "in" / f"pets-{number:06d}.tar", 3 * number, cls=cls)
    path = tmp_path / "in" if how == "folder" else tmp_path / "in" / "pets-{000000..000002}.tar"
    built("tar", path, tmp_path / "out", shuffle=False)
    assert origins(tmp_path / "out/train") == [f"{number:07d}.png" for number in range(9)]
    assert [sample.image for sample in samples(tmp_path / "out/train")] == [image_bytes(number) for number in range(9)]
    assert [sample.label for sample in samples(tmp_path / "out/train")] == [number % 3 for number in range(9)]
    if how == "pattern":
        with pytest.raises(UserError, match=r"pets-000003\.tar is not a file"):
            built("tar", tmp_path / "in" / "pets-{000000..000003}.tar", tmp_path / "new")
    else:
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match=r"empty holds no \.tar file"):
            built("tar", tmp_path / "empty", tmp_path / "new")
        assert ShardedDataset.open(
            build_own_images(path, 8, None, lambda what, done, total: None).folder / "train"
        ).labels == ["0", "1", "2"]  # fmt: skip


@pytest.mark.parametrize(
    "names", [("in-train-000000", "in-train-000001", "in-val-000000"), ("train/000000", "train/000001", "val/000000")]
)
def test_names_of_files_or_folders_say_the_splits(names: tuple[str, ...], tmp_path: Path) -> None:
    for number, name in enumerate(names):
        written(tmp_path / "in" / f"{name}.tar", 3 * number, cls=cls)
    assert built("tar", tmp_path / "in", tmp_path / "out").counts == {"train": 6, "test": 3}
    assert set(label_of(tmp_path / "out/test")) == {f"val/{number:07d}.png" for number in (6, 7, 8)}
    assert built("tar", tmp_path / "in", tmp_path / "none", split="none").counts == {"train": 9}
    written(tmp_path / "in" / "more-000000.tar", 20, cls=cls)
    with pytest.raises(UserError, match=r"more-000000\.tar names no split, but .* does"):
        built("tar", tmp_path / "in", tmp_path / "new")


def test_a_shard_of_our_own_keeps_its_labels(tmp_path: Path) -> None:
    built("tar", written(tmp_path / "a.tar", 0, 6, cls=cls), tmp_path / "out")
    (shard,) = (tmp_path / "out/train").glob("*.tar")
    built("tar", shard, tmp_path / "again")
    labels = [sorted(sample.label for sample in samples(tmp_path / name / "train")) for name in ("out", "again")]
    assert labels[0] == labels[1] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".cls", None, r"0000001\.png \(of 3 images\) has no label in a \.cls beside it, but others do"),
        (".cls", b"", r"member 0000001\.cls must hold one label"),
        (".cls", b"\xff", r"member 0000001\.cls is not text in UTF-8"),
        (".cls", b"1\n2", r"member 0000001\.cls must hold one label"),
        (".json", b'{"label": [1]}', r"member 0000001\.json: its label must be a name or a whole number"),
        (".json", b'{"label": true}', r"member 0000001\.json: its label must be a name or a whole number"),
        (".json", b'{"caption": "x"}', r"0000001\.png \(of 3 images\) has no label in a \.json beside it"),
        (".json", b"{", r"0000001\.png \(of 3 images\) has no label in a \.json beside it"),
    ],
)
def test_a_label_that_is_missing_or_none_is_named(
    suffix: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        for number in range(3):
            good = b"3" if suffix == ".cls" else json.dumps({"label": 3}).encode()
            files = {".png": image_bytes(number), suffix: content if number == 1 else good}
            for ending, data in files.items():
                if data is not None:
                    info = tarfile.TarInfo(f"{number:07d}{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    with pytest.raises(UserError, match=message) as refused:
        built("tar", archive, tmp_path / "out")
    assert "--labels none" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert built("tar", archive, tmp_path / "out", labels="none").counts == {"train": 3}


def test_one_key_in_two_files_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(tmp_path / "in" / f"{name}.tar", 0)
    with pytest.raises(UserError, match=r"0000000\.png is in the archive twice"):
        built("tar", tmp_path / "in", tmp_path / "out")
