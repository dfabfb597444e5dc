"""Parquet datasets as Hugging Face keeps them, written by pyarrow: images, class labels, splits, and damage."""

import base64
import builtins
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import built, fill, image_bytes, origins, samples

from latentscale.containers import parquet_files
from latentscale.containers.parquet_files import open_parquet
from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.shards.verifying import verify
from latentscale.sources import parquet
from latentscale.sources.listing import Item
from latentscale.sources.parquet import ParquetReader, Row
from latentscale.sources.registry import list_source
from latentscale.sources.source_options import SourceOptions

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IMAGE = {"_type": "Image"}


def classes(*names: str) -> dict[str, Any]:
    return {"names": list(names), "_type": "ClassLabel"}


def write(
    path: Path, columns: Mapping[str, Any], features: Mapping[str, Any] | None = None, group: int = 3, **options: Any
) -> Path:
    """A file with Hugging Face's description of its columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        name: pa.array(values, STRUCT) if isinstance(values, list) and isinstance(values[0], dict) else pa.array(values)
        for name, values in columns.items()
    }
    table = pa.table(arrays)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=group, **options)
    return path


def images(first: int, count: int) -> list[dict[str, Any]]:
    return [{"bytes": image_bytes(n), "path": f"{n}.png"} for n in range(first, first + count)]


def pets(path: Path, first: int, count: int, **options: Any) -> Path:
    columns = {"image": images(first, count), "label": [n % 3 for n in range(first, first + count)]}
    return write(path, columns, {"image": IMAGE, "label": classes("cat", "dog", "fox")}, **options)


def repository(root: Path) -> Path:
    """As a dataset is on the Hub."""
    fill(
        root, {"README.md": b"---\nlicense: mit\n---", ".gitattributes": b"*.parquet filter=lfs", "data/.gitkeep": b""}
    )
    pets(root / "data/train-00000-of-00002.parquet", 0, 7)
    pets(root / "data/train-00001-of-00002.parquet", 7, 4)
    pets(root / "data/validation-00000-of-00001.parquet", 11, 5)
    return root


def labels(folder: Path) -> list[str]:
    names = ShardedDataset.open(folder).labels
    return [names[sample.label] for sample in samples(folder) if sample.label is not None]


@pytest.mark.parametrize("given", ["", "data", "files"])
def test_a_dataset_of_the_hub_has_its_splits_and_classes(given: str, tmp_path: Path) -> None:
    root = repository(tmp_path / "pets")
    path: Any = sorted(root.glob("data/*.parquet")) if given == "files" else root / given
    result = built("parquet", path, tmp_path / "out", shuffle=False)
    assert result.counts == {"train": 11, "test": 5}
    assert ShardedDataset.open(tmp_path / "out/train").labels == ["cat", "dog", "fox"]
    assert labels(tmp_path / "out/train") == [("cat", "dog", "fox")[n % 3] for n in range(11)]
    assert [s.image for s in samples(tmp_path / "out/train")] == [image_bytes(n) for n in range(11)]
    assert [s.image for s in samples(tmp_path / "out/test")] == [image_bytes(n) for n in range(11, 16)]
    assert origins(tmp_path / "out/train")[8].endswith("train-00001-of-00002.parquet[1]")
    notes = list_source("parquet", path, SourceOptions()).notes
    assert notes[-1] == "labels of 16 images from the column label"
    assert not verify(tmp_path / "out", 0).broken


@pytest.mark.parametrize(
    "names",
    [
        ("train/0000.parquet", "test/0000.parquet"),
        ("default/train/0.parquet", "default/test/0.parquet"),
        ("pets-train.parquet", "pets-test.parquet"),
    ],
)
def test_splits_are_in_the_names_of_files_or_folders(names: Sequence[str], tmp_path: Path) -> None:
    for number, name in enumerate(names):
        pets(tmp_path / "in" / name, 4 * number, 4)
    assert built("parquet", tmp_path / "in", tmp_path / "out").counts == {"train": 4, "test": 4}
    assert built("parquet", tmp_path / "in", tmp_path / "all", split="all").counts == {"train": 8, "test": 8}


def test_other_names_of_splits_and_datasets_are_refused_until_they_are_named(tmp_path: Path) -> None:
    for number, name in enumerate(("faces", "objects")):
        pets(tmp_path / f"in/data/{name}-00000-of-00001.parquet", 4 * number, 4)
    with pytest.raises(UserError, match=r"holds the splits faces, objects: .*--splits train=faces,test=objects"):
        built("parquet", tmp_path / "in", tmp_path / "out")
    assert built("parquet", tmp_path / "in", tmp_path / "a", splits="train=faces,test=objects").counts == {
        "train": 4,
        "test": 4,
    }
    assert built("parquet", tmp_path / "in", tmp_path / "b", split="none").counts == {"train": 8}
    assert built("parquet", tmp_path / "in", tmp_path / "c", splits="train=objects").counts == {"train": 4}
    with pytest.raises(UserError, match=r"--splits train=other names none of the files"):
        built("parquet", tmp_path / "in", tmp_path / "out", splits="train=other")
    pets(tmp_path / "two/small/train-00000-of-00001.parquet", 0, 4)
    pets(tmp_path / "two/large/train-00000-of-00001.parquet", 0, 8)
    with pytest.raises(UserError, match=r"holds parquet files in large and small, which may be different datasets"):
        built("parquet", tmp_path / "two", tmp_path / "out")
    pets(tmp_path / "part/train-00001-of-00003.parquet", 0, 4)
    notes = list_source("parquet", tmp_path / "part", SourceOptions()).notes
    assert "only 1 of the 3 files of train are there" in notes


COLUMNS: dict[str, tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any], list[str]]] = {
    "raw bytes": (
        {"jpg": [image_bytes(n) for n in range(4)], "label": [1, 0, 10, 2]},
        None, {}, ["1", "0", "10", "2"],
    ),
    "texts": ({"img": images(0, 4), "class": list("xyxy")}, None, {}, list("xyxy")),
    "a column that only the description knows": (
        {"img": images(0, 4), "digit": [1, 0, 1, 0]},
        {"digit": classes("a", "b")}, {}, list("baba"),
    ),
    "categories of pandas": (
        {"img": images(0, 4), "label": pa.array(list("xyxy")).dictionary_encode()},
        None, {}, list("xyxy"),
    ),
    "WebDataset's names": (
        {"png": images(0, 4), "cls": [3, 1, 3, 1], "__key__": list("abcd")},
        None, {}, list("3131"),
    ),
    "a chosen column": (
        {"image": images(0, 4), "label": [0] * 4, "kind": list("xyxy")},
        None, {"label_field": ("kind",)}, list("xyxy"),
    ),
    "a chosen image": (
        {"a": images(4, 4), "b": images(0, 4), "label": [0, 1, 0, 1]},
        None, {"image_field": "b"}, list("0101"),
    ),
    "large binary": (
        {"image": pa.array([image_bytes(n) for n in range(4)], pa.large_binary()), "label": [0, 1, 0, 1]},
        None, {}, list("0101"),
    ),
    "no labels": ({"image": images(0, 4), "caption": list("abcd")}, None, {}, []),
    "labels that are not wanted": ({"image": images(0, 4), "label": [0, -1, 0, 1]}, None, {"labels": "none"}, []),
}  # fmt: skip


@pytest.mark.parametrize("case", COLUMNS)
def test_images_and_labels_are_found_by_type_and_name(case: str, tmp_path: Path) -> None:
    columns, features, options, expected = COLUMNS[case]
    path = write(tmp_path / "a.parquet", columns, features)
    built("parquet", path, tmp_path / "out", shuffle=False, **options)
    assert labels(tmp_path / "out/train") == expected
    assert [s.image for s in samples(tmp_path / "out/train")] == [image_bytes(n) for n in range(4)]


def test_two_columns_of_labels_are_combined_when_asked(tmp_path: Path) -> None:
    columns = {"img": images(0, 4), "fine_label": [0, 1, 2, 1], "coarse_label": [0, 0, 1, 0]}
    features = {"img": IMAGE, "fine_label": classes("a", "b", "c"), "coarse_label": classes("x", "y")}
    path = write(tmp_path / "cifar.parquet", columns, features)
    with pytest.raises(
        UserError,
        match=r"labels in the columns fine_label, coarse_label: choose with --label-field fine_label, take all",
    ):
        built("parquet", path, tmp_path / "out")
    built("parquet", path, tmp_path / "fine", label_field=("fine_label",), shuffle=False)
    assert labels(tmp_path / "fine/train") == ["a", "b", "c", "b"]
    built("parquet", path, tmp_path / "both", label_field=("fine_label", "coarse_label"), shuffle=False)
    assert ShardedDataset.open(tmp_path / "both/train").label_sizes == (3, 2)
    assert labels(tmp_path / "both/train")[2] == "fine_label=c, coarse_label=y"


NO_BYTES = [{"bytes": None, "path": f"/home/me/{n}.png"} for n in range(4)]
WRONG: dict[str, tuple[dict[str, Any], dict[str, Any] | None, str]] = {
    "two images": (
        {"a": images(0, 4), "b": images(0, 4)},
        None, r"images in the columns a, b: choose with --image-field a",
    ),
    "no image": (
        {"text": list("abcd"), "n": [1, 2, 3, 4]},
        None, r"has no column of images, .*\(its columns: text, n\)",
    ),
    "paths alone": (
        {"image": NO_BYTES}, {"image": IMAGE},
        r"a\.parquet holds only the paths of images, not the images: .*embed_table_storage",
    ),
    "a missing label": (
        {"image": images(0, 4), "label": [0, None, 1, 1]},
        None, r"a\.parquet column label\[1\] is missing, as for images without a label",
    ),
    "no label": ({"image": images(0, 4), "label": [0, 1, 1, -1]}, None, r"column label, row 3 and on\[0\] is -1"),
    "a fraction": (
        {"image": images(0, 4), "label": [0.5, 1, 1, 1]},
        None, r"column label\[0\] is 0\.5: labels must be whole",
    ),
    "a list": (
        {"image": images(0, 4), "label": [[1], [2], [1], [1]]},
        None, r"column label\[0\] is \[1\]: labels must be whole",
    ),
    "a class beyond the names": (
        {"image": images(0, 4), "label": [0, 1, 5, 1]}, {"label": classes("x", "y")},
        r"has the label 5 in label, which is none of its 2 classes",
    ),
    "names that are no list": (
        {"image": images(0, 4), "label": [0, 1, 0, 1]}, {"label": {"_type": "ClassLabel", "names": 5}},
        r"a\.parquet cannot be read \(the names of the classes of label",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_columns_that_are_missing_or_unclear_are_named(case: str, tmp_path: Path) -> None:
    columns, features, message = WRONG[case]
    path = write(tmp_path / "a.parquet", columns, features)
    with pytest.raises(UserError, match=message) as refused:
        built("parquet", path, tmp_path / "out")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_field": "label"}, r"--image-field label: .* no such column of bytes \(its columns: image, label\)"),
        ({"label_field": ("kind",)}, r"--label-field kind: .* no such column \(its columns: image, label\)"),
        ({"labels": "folders"}, r"--labels folders is not used by parquet: use --label-field COLUMN"),
        ({"labels": "none", "label_field": ("label",)}, r"contradict each other"),
        ({"splits": "train=pets", "split": "none"}, r"--splits and --split none contradict"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        built("parquet", pets(tmp_path / "pets.parquet", 0, 4), tmp_path / "out", **options)


def test_files_that_disagree_are_named(tmp_path: Path) -> None:
    pets(tmp_path / "in/train-00000-of-00001.parquet", 0, 4)
    features = {"image": IMAGE, "label": classes("dog", "cat", "fox")}
    write(tmp_path / "in/test-00000-of-00001.parquet", {"image": images(0, 3), "label": [0, 1, 2]}, features)
    with pytest.raises(UserError, match=r"train-.*parquet and .*test-.*parquet name the classes of label differently"):
        built("parquet", tmp_path / "in", tmp_path / "out")
    write(tmp_path / "in/test-00000-of-00001.parquet", {"image": images(0, 3)}, {"image": IMAGE})
    with pytest.raises(UserError, match=r"test-.*parquet has no column label, but others have: .*--splits"):
        built("parquet", tmp_path / "in", tmp_path / "out")
    assert built("parquet", tmp_path / "in", tmp_path / "out", splits="train=train").counts == {"train": 4}


def test_rows_without_bytes_or_with_damage_may_be_left_out(tmp_path: Path) -> None:
    rows = [*images(0, 3), {"bytes": None, "path": "/x.png"}, None, {"bytes": b"no image", "path": None}, *images(6, 2)]
    path = write(tmp_path / "a.parquet", {"image": pa.array(rows, STRUCT), "label": list("xyxyxyxy")}, {"image": IMAGE})
    with pytest.raises(
        UserError, match=r"a\.parquet\[3\] has no bytes, only a path or nothing \(.*embed_table_storage"
    ):
        built("parquet", path, tmp_path / "out")
    result = built("parquet", path, tmp_path / "out", on_error="skip")
    assert result.counts == {"train": 5}
    assert [problem.name for problem in result.skipped] == ["a.parquet[3]", "a.parquet[4]", "a.parquet[5]"]


@pytest.mark.parametrize(
    "where", ["start", "pages", "checksum", "footer", "cut off", "empty", "nonsense", "description"]
)
def test_damage_is_named(where: str, tmp_path: Path) -> None:
    path = pets(tmp_path / "a.parquet", 0, 8, compression="none", write_page_checksum=where == "checksum")
    content = bytearray(path.read_bytes())
    page = pq.read_metadata(path).row_group(0).column(0).data_page_offset
    size = int.from_bytes(content[-8:-4], "little")
    place = {"start": 0, "pages": page, "checksum": content.index(b"IDAT"), "footer": len(content) - 8 - size}.get(
        where
    )
    if where == "description":
        pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": "{"}), path)
    else:
        if place is not None:
            content[place : place + 30] = bytes(255 - byte for byte in content[place : place + 30])
        path.write_bytes({"cut off": content[:-200], "empty": b"", "nonsense": b"nonsense" * 9}.get(where, content))
    with pytest.raises(
        UserError, match=r"a\.parquet(\[\d+\])? (cannot be read \(|is lost: .*a\.parquet cannot be read)"
    ) as refused:
        built("parquet", path, tmp_path / "out")
    assert "\n" not in str(refused.value)


def encrypted(path: Path, columns: Sequence[str], plaintext_footer: bool) -> Path:
    import pyarrow.parquet.encryption as encryption

    class Keys(encryption.KmsClient):  # type: ignore[misc]
        def wrap_key(self, key: bytes, name: str) -> bytes:
            return base64.b64encode(key)

        def unwrap_key(self, key: bytes, name: str) -> bytes:
            return base64.b64decode(key)

    factory = encryption.CryptoFactory(lambda configuration: Keys())
    properties = factory.file_encryption_properties(
        encryption.KmsConnectionConfig(),
        encryption.EncryptionConfiguration(
            footer_key="footer",
            column_keys={"column": columns},
            plaintext_footer=plaintext_footer,
            double_wrapping=False,
        ),
    )
    table = pq.read_table(pets(path, 0, 6))
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize("columns", [["image.bytes"], ["image.bytes", "image.path"], ["label"], ["image.path"]])
@pytest.mark.parametrize("plaintext_footer", [False, True])
def test_what_is_encrypted_is_named(columns: list[str], plaintext_footer: bool, tmp_path: Path) -> None:
    """pyarrow ends the process where it is asked for what the footer says of an encrypted column."""
    path = encrypted(tmp_path / "a.parquet", columns, plaintext_footer)
    options: dict[str, Any] = {}
    if plaintext_footer and "image.bytes" not in columns:
        assert built("parquet", path, tmp_path / "out", labels="none").counts == {"train": 6}
        if "label" not in columns:
            return
    else:
        options = {"labels": "none"}
    with pytest.raises(
        UserError, match=r"a\.parquet cannot be read \(.*: it is encrypted, so write it anew"
    ) as refused:
        built("parquet", path, tmp_path / "new", **options)
    assert "\n" not in str(refused.value)


def test_a_compression_that_pyarrow_does_not_know_is_named(tmp_path: Path) -> None:
    path = pets(tmp_path / "a.parquet", 0, 6)
    content = path.read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    # the last part of the column's path, then its codec as a Thrift number: 1 is Snappy, 3 is LZO
    footer = content[start:].replace(b"bytes\x15\x02", b"bytes\x15\x06", 1)
    assert footer != content[start:]
    path.write_bytes(content[:start] + footer)
    with pytest.raises(UserError, match=r"a\.parquet cannot be read \(.*LZO.*: write it anew with compression='zstd'"):
        built("parquet", path, tmp_path / "out")


_READ_ALL = """
import resource, sys
from pathlib import Path
from latentscale.containers import parquet_files
parquet_files.KEPT_BYTES = 2**22
file = parquet_files.open_parquet(Path(sys.argv[1]))
parquet_files.group_bytes(file, "image"), list(parquet_files.read_column(file, "label"))
parquet_files.read_bytes(file, "image", 0, 0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for row in range(file.rows[0]):
    assert parquet_files.read_bytes(file, "image", 0, row)[0] == row % 256
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_one_large_row_group_is_read_in_pieces(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.parquet", 1500
    noise = np.random.default_rng(0).bytes(2**16)
    column = pa.array([{"bytes": bytes([n % 256]) + noise, "path": ""} for n in range(rows)], STRUCT)
    table = pa.table({"image": column, "label": [n % 2 for n in range(rows)]})
    pq.write_table(table, path, row_group_size=rows, compression="none", use_dictionary=False, write_batch_size=16)
    size = path.stat().st_size
    assert size > 90 * 2**20
    done = subprocess.run(
        [sys.executable, "-c", _READ_ALL, path], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) * 1024 < size / 3


def test_large_row_groups_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pets(tmp_path / "a.parquet", 0, 9)
    assert not any("row groups hold" in note for note in list_source("parquet", path, SourceOptions()).notes)
    monkeypatch.setattr(parquet, "_LARGE_GROUP_BYTES", 100)
    notes = list_source("parquet", path, SourceOptions()).notes
    assert any("row groups hold up to" in note and "fewer --workers need less memory" in note for note in notes)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pets(tmp_path / "a.parquet", 0, 3)
    whole = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return whole(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"parquet needs pyarrow: pip install 'latentscale\[parquet\]'"):
        list_source("parquet", path, SourceOptions())


@pytest.mark.parametrize("kept", [0, 3000, 2**28], ids=["nothing kept", "some", "all"])
def test_rows_are_read_in_any_order_however_little_is_kept(
    kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "KEPT_BYTES", kept)
    file = open_parquet(pets(tmp_path / "a.parquet", 0, 100, group=60))
    assert file.rows == (60, 40)
    reader = ParquetReader((file,), "image")
    forwards = [(n // 60, n % 60) for n in range(100)]
    for order in (forwards, forwards[::-1], forwards[::7] + forwards[::3], [(1, 39), (0, 0), (1, 0), (0, 59), (1, 39)]):
        for group, row in order:
            assert reader.read(Item("", Row(0, group, row), ())) == image_bytes(60 * group + row)
    held = sum(each.size for each in parquet_files._groups.values())
    assert held <= max(3 * kept, 16 * 400)


def test_images_that_come_by_label_are_shuffled(tmp_path: Path) -> None:
    columns = {"image": images(0, 40), "label": [n // 10 for n in range(40)]}
    assert list_source("parquet", write(tmp_path / "a.parquet", columns), SourceOptions()).sorted_by_label
    assert not list_source("parquet", pets(tmp_path / "b.parquet", 0, 40), SourceOptions()).sorted_by_label
