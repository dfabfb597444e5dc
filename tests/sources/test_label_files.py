"""Labels in tables: as Excel, pandas, StyleGAN and others write them; what is wrong with one is said."""

import json
import re
import unicodedata
from pathlib import Path

import pytest
from layouts import built, fill, image_bytes, samples

from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.sources.label_matching import Mismatch, match_rows
from latentscale.sources.label_tables import csv_columns
from latentscale.sources.registry import list_source
from latentscale.sources.source_options import SourceOptions

FOUR = ("0.png", "1.png", "2.png", "3.png")
CAT_DOG = {"0.png": "cat", "1.png": "cat", "2.png": "dog", "3.png": "dog"}


def listed(
    tmp_path: Path, content: bytes, names: tuple[str, ...] = FOUR, name: str = "l.csv"
) -> tuple[dict, list[str]]:
    """The label of each image by its name, as text, and the notes."""
    fill(tmp_path / "in", {image: image_bytes(number) for number, image in enumerate(names)})
    table = fill(tmp_path, {name: content}) / name
    listing = list_source("folder", tmp_path / "in", SourceOptions(labels=str(table)))
    found = {
        item.name: None if item.label is None else listing.labels.names[item.label]
        for items in listing.splits.values()
        for item in items
    }
    return found, listing.notes


PLAIN = "file,label\n0.png,cat\n1.png,cat\n2.png,dog\n3.png,dog\n"
WRITTEN = {
    "plain": PLAIN,
    "spaces": "file , label\n0.png, cat\n 1.png,cat \n2.png,\tdog\n3.png ,  dog\n",
    "quoted": 'file,label\n"0.png", "cat"\n1.png,"cat"\n2.png,dog\n3.png,dog\n',
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "bars": PLAIN.replace(",", "|"),
    "Excel's line of the separator": "sep=;\r\n" + PLAIN.replace(",", ";"),
    "Windows lines": PLAIN.replace("\n", "\r\n"),
    "old Macintosh lines": PLAIN.replace("\n", "\r"),
    "a mark of UTF-8": "\ufeff" + PLAIN,
    "empty rows and columns": "file,label,,\n0.png,cat,,\n1.png,cat,,\n,,,\n2.png,dog,,\n3.png,dog\n,,,\n\n",
    "an empty column before": ",file,label\n,0.png,cat\n,1.png,cat\n,2.png,dog\n,3.png,dog\n",
    "pandas's index": ",file,label\n7,0.png,cat\n3,1.png,cat\n0,2.png,dog\n1,3.png,dog\n",
    "pandas's index twice": "Unnamed: 0,file,label\n0,0.png,cat\n1,1.png,cat\n2,2.png,dog\n3,3.png,dog\n",
    "labels first": "label,file\ncat,0.png\ncat,1.png\ndog,2.png\ndog,3.png\n",
    "a number before the path": "id,image_path,label\n10,0.png,cat\n11,1.png,cat\n12,2.png,dog\n13,3.png,dog\n",
    "a path before the name": "path,image,label\n/a/x,0.png,cat\n/a/y,1.png,cat\n/a/z,2.png,dog\n/b/w,3.png,dog\n",
    "names without ending": "image_id,label\n0,cat\n1,cat\n2,dog\n3,dog\n",
    "paths of another machine": re.sub("(.[.])", r"/kaggle/input/pets/\1", PLAIN),
    "a path of Windows": re.sub("(.[.])", r"C:\\\\pets\\\\\1", PLAIN),
    "dots before": re.sub("(.[.])", r"./\1", PLAIN),
    "other images of the same name": PLAIN + "a/4.png,dog\nb/4.png,cat\n",
    "more images": PLAIN + "4.png,bird\n",
    "an image that is not here, without a label": PLAIN + "4.png,\n",
}  # fmt: skip


@pytest.mark.parametrize("how", WRITTEN)
def test_a_table_is_read_however_it_was_written(tmp_path, how):
    found, notes = listed(tmp_path, WRITTEN[how].encode())
    assert found == CAT_DOG
    left = WRITTEN[how].count("4.png")
    assert len([note for note in notes if f"l.csv names {left} image" in note and "lacks, such as" in note]) == (
        left > 0
    )


@pytest.mark.parametrize(
    "title", ["image_id", "id", "ID", "Filename", "file_name", "File Name", "path", "img", "Image"]
)
def test_the_usual_titles_of_names_are_known(tmp_path, title):
    assert listed(tmp_path, PLAIN.replace("file", title, 1).encode())[0] == CAT_DOG


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8", "utf-8-sig"])
def test_encodings_that_say_what_they_are_are_read(tmp_path, encoding):
    found, _ = listed(tmp_path, PLAIN.replace("cat", "Bär").encode(encoding))
    assert found["0.png"] == "Bär"


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (("a.JPG", "b.JPG"), ("a.jpg", "b.jpg")),
        (("IMG_1.png", "IMG_2.PNG"), ("img_1.PNG", "Img_2.png")),
        (("a.JPEG", "b.JPG"), ("a", "b")),
        (("x.y.png", "x.z.png"), ("x.y", "x.z")),
        ((unicodedata.normalize("NFD", "é.png"), "b.png"), (unicodedata.normalize("NFC", "é.png"), "b.png")),
        ((unicodedata.normalize("NFC", "é.png"), "b.png"), (unicodedata.normalize("NFD", "É.PNG"), "b.png")),
        (("images/p1/a.png", "images/p2/b.png"), ("a.png", "b.png")),
        (("images/p1/a.png", "images/p2/b.png"), ("a", "p2/b")),
        (("images/p1/a.png", "images/p2/b.png"), ("p1\\a.png", "images\\p2\\b.png")),
        (("p1/a.png", "p2/a.png"), ("data/p1/a.png", "data/p2/A")),
        (("a.png", "A.png"), ("a.png", "A.png")),
    ],
)
def test_names_that_differ_only_in_how_they_are_written_are_found(names, rows):
    assert match_rows(rows, names) == [0, 1]


@pytest.mark.parametrize(
    ("names", "rows", "message"),
    [
        (
            ("p1/a.png", "p2/a.png"),
            ("a.png",),
            r"names a\.png, which fits p1/a\.png and p2/a\.png: name the whole path",
        ),
        (("a.png", "a.jpg"), ("a",), r"names a, which fits a\.png and a\.jpg"),
        (("a.png", "A.png"), ("A.PNG",), r"names A\.PNG, which fits a\.png and A\.png"),
        (("a.png",), ("train/a.png", "test/a.png"), r"names a\.png twice, as train/a\.png and test/a\.png"),
    ],
)
def test_names_that_fit_several_are_refused(names, rows, message):
    with pytest.raises(Mismatch, match=message):
        match_rows(rows, names)


@pytest.mark.parametrize(
    ("names", "rows", "found"),
    [
        (("train/a.png",), ("test/a.png", "train/a.png"), [1]),
        (("a.png", "b.png"), ("b.jpg", "b.png"), [None, 1]),
        (("a.png",), ("a.jpg",), [None]),
        (("01.png",), ("1",), [None]),
        (("ba.png",), ("a.png",), [None]),
        (("x/a.png",), ("y/a.png",), [None]),
    ],
)
def test_names_of_other_images_are_not_taken(names, rows, found):
    assert match_rows(rows, names) == found


ROWS = PLAIN.removeprefix("file,label\n")
TWO = "0.png,a,b\n1.png,a,b\n2.png,a,b\n3.png,a,b"
NO_INDEX = ",file,label\na,0.png,cat\nb,1.png,cat\nc,2.png,dog\nd,3.png,dog"
REFUSED = {
    "an empty cell": (PLAIN[:-4] + "\n", r"no label for 3\.png \(its cell is empty;"),
    "a cell of spaces": (PLAIN.replace("dog", "  "), r"no label for 2\.png and 1 more \(its cell"),
    "an image left out": ("file,label\n0.png,cat\n1.png,cat\n2.png,dog\n", r"no label for 3\.png \(of 4 images"),
    "other images": (PLAIN.replace(".png", ".gif"), r"any of the 4 images in .*: it names 0\.gif, an image is 0\.png"),
    "no titles": (ROWS, r"first line must be titles, such as file,label, but '0\.png', 'cat' name no column"),
    "no file title": (f"photo,label\n{ROWS}", r"'photo', 'label' name no column of files: call that column file"),
    "no labels": ("file\n0.png\n1.png\n2.png\n3.png\n", r"has no column of labels beside file"),
    "nothing": ("", r"first line must be titles, such as file,label, but it is empty"),
    "a column without title": (NO_INDEX, r"column 1 has no title"),
    "a title twice": (f"file,label,label\n{TWO}", r"2 columns with the title 'label'"),
    "a row too short": ("file,label\n0.png\n1.png,cat\n", r"the line of '0\.png' has 1 values instead of 2"),
    "an image twice": (PLAIN + "0.png,dog\n", r"names 0\.png twice: keep one"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_with_a_table_is_said(tmp_path, what):
    content, message = REFUSED[what]
    with pytest.raises(UserError, match=rf"l\.csv .*{message}") as refused:
        listed(tmp_path, content.encode())
    assert "\n" not in str(refused.value)
    assert "--labels none" in str(refused.value) or "keep one" in str(refused.value)


def test_text_in_another_encoding_is_named(tmp_path):
    with pytest.raises(UserError, match="it is not text in UTF-8: save it as UTF-8"):
        listed(tmp_path, PLAIN.replace("cat", "Bär").encode("cp1252"))


def test_several_columns_are_several_labels():
    columns = csv_columns(b"file,name,size\n0.png,Tom,1\n1.png,Kim,2")
    assert columns.table(0).titles == ("name", "size")
    assert csv_columns(b"id,path,label\n1,a.png,x\n2,b.png,y").table(1).titles == ("label",)
    assert csv_columns(b"file,id\na.png,7\nb.png,8").table(0).titles == ("id",)


def test_labels_that_look_equal_are_one(tmp_path):
    content = PLAIN.replace("cat", "caf\u00e9", 1).replace("cat", "cafe\u0301")
    assert set(listed(tmp_path, content.encode())[0].values()) == {"caf\u00e9", "dog"}


def test_a_test_split_that_the_table_leaves_out_has_no_labels_and_is_named(tmp_path):
    names = ("train/0.png", "train/1.png", "test/2.png", "test/3.png")
    expected = {"train/0.png": "cat", "train/1.png": "dog", "test/2.png": None, "test/3.png": None}
    for rows in ("0.png,cat\n1.png,dog\n", "0.png,cat\n1.png,dog\n2.png,\n3.png,\n"):
        found, notes = listed(tmp_path, f"file,label\n{rows}".encode(), names)
        assert found == expected
        assert f"test has no labels: {tmp_path}/l.csv has none for its images" in notes
    with pytest.raises(UserError, match=r"no label for test/3\.png \(of 4 images"):
        listed(tmp_path, b"file,label\n0.png,cat\n1.png,dog\n2.png,cat\n", names)
    with pytest.raises(UserError, match=r"no label for train/0\.png and 1 more"):
        listed(tmp_path, b"file,label\n2.png,cat\n3.png,dog\n", names)


def test_a_label_in_the_table_that_train_lacks_is_named(tmp_path):
    names = ("train/0.png", "train/1.png", "test/2.png", "test/3.png")
    rows = "0.png,cat,1\n1.png,dog,1\n2.png,bird,2\n3.png,cat,2\n"
    _, notes = listed(tmp_path, f"file,animal,size\n{rows}".encode(), names)
    assert "no image of train has the label animal='bird'" in notes
    assert "no image of train has the label size='2'" in notes


PAIRS = [[name, number % 2] for number, name in enumerate(FOUR)]
READ_JSON = {
    "StyleGAN's": {"labels": PAIRS},
    "with further keys": {"version": 2, "labels": PAIRS, "name": "pets", "shape": [3, 8, 8]},
    "with backslashes": {"labels": [[f".\\{name}", label] for name, label in PAIRS]},
    "in a folder of another machine": {"labels": [[f"00000\\{name}", label] for name, label in PAIRS]},
    "an object of labels": {"labels": dict(PAIRS)},
    "an object": dict(PAIRS),
    "a list of pairs": PAIRS,
    "records": [{"file_name": name, "label": label} for name, label in PAIRS],
    "records with an id": [{"id": n, "label": label, "image": name} for n, (name, label) in enumerate(PAIRS)],
    "names": {"labels": [[name, f" {label} "] for name, label in PAIRS]},
}


@pytest.mark.parametrize("how", READ_JSON)
def test_labels_in_json_are_read_however_they_were_written(tmp_path, how):
    found, _ = listed(tmp_path, json.dumps(READ_JSON[how]).encode(), name="l.json")
    assert found == {name: str(label) for name, label in PAIRS}


def test_json_lines_are_records(tmp_path):
    lines = "\n".join(json.dumps({"file_name": name, "label": label}) for name, label in PAIRS)
    assert listed(tmp_path, lines.encode() + b"\n\n", name="l.jsonl")[0] == {name: str(label) for name, label in PAIRS}
    with pytest.raises(UserError, match=r"l\.jsonl is not a label file \(its line 2 is not JSON"):
        listed(tmp_path, b'{"file": "0.png", "label": 1}\n{"file"', name="l.jsonl")


REFUSED_JSON = {
    "cameras": ({"labels": [[name, [0.5] * 25] for name in FOUR]}, r"label 0\.5 is neither a whole number nor a name"),
    "one-hot floats": ({"labels": [[name, [0.0, 1.0]] for name in FOUR]}, r"the label 0\.0 is neither"),
    "true and false": (dict.fromkeys(FOUR, True), r"the label True is neither"),
    "objects": ({"labels": [[name, {"a": {"b": 1}}] for name in FOUR]}, r"the label \{'b': 1\} is neither"),
    "triples": ({"labels": [[name, 1, 2] for name in FOUR]}, r"entry \['0\.png', 1, 2\] is not a pair"),
    "numbers for names": ({"labels": [[1, 2]]}, r"entry \[1, 2\] is not a pair of a file name and a label"),
    "COCO": ({"images": [], "annotations": [], "categories": []}, r"it holds COCO's annotations"),
    "a description": ({"format": "x", "shape": [3, 8, 8]}, r"some of its images have one label, others a list"),
    "other names": ({"name": "pets", "version": 2}, r"any of the 4 images in .*it names name, an image is 0\.png"),
    "a number": (3, r"it holds 3, not an object or a list"),
    "a text": ("x" * 500, r"it holds 'x{50,60}\.\.\., not an object"),
    "different lists": ({"0.png": [1], "1.png": [1, 2]}, r"not every image has 1 labels"),
    "different keys": ({"0.png": {"a": 1}, "1.png": {"b": 1}}, r"'1\.png' has the labels \['b'\], not \['a'\]"),
    "no file": ([{"label": 1}], r"one of its titles must be file, but 'label' name no column of files"),
    "null for one": ({**dict(PAIRS), "3.png": None}, r"no label for 3\.png \(its cell is empty"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED_JSON)
def test_json_of_another_shape_is_refused_in_one_line(tmp_path, what):
    data, message = REFUSED_JSON[what]
    with pytest.raises(UserError, match=rf"l\.json .*{message}.*--labels none") as refused:
        listed(tmp_path, json.dumps(data).encode(), name="l.json")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b'{"0.png": ' + b"9" * 5000 + b"}",
        b'{"0.png": "\\ud800"}',
        b'{"0.png": NaN}',
        b"nul",
    ],
)
def test_damaged_json_is_refused_in_one_line(tmp_path, content):
    with pytest.raises(UserError, match=r"l\.json is not a label file \(.*--labels none") as refused:
        listed(tmp_path, content, name="l.json")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("labels", [None, []])
def test_a_file_that_says_there_are_no_labels_is_believed_and_named(tmp_path, labels):
    content = json.dumps({"labels": labels, "name": "x"}).encode()
    fill(tmp_path / "in", {f"0000{n}/img{n}.png": image_bytes(n) for n in range(3)} | {"dataset.json": content})
    listing = list_source("folder", tmp_path / "in", SourceOptions())
    assert listing.labels.names == ()
    assert listing.notes == [f"{tmp_path}/in/dataset.json says that the images have no labels"]


def test_a_label_file_is_found_in_any_case_of_letters_and_is_not_counted_as_ignored(tmp_path):
    fill(tmp_path / "in", {name: image_bytes(n) for n, name in enumerate(FOUR)} | {"Labels.CSV": PLAIN.encode()})
    listing = list_source("folder", tmp_path / "in", SourceOptions())
    assert (listing.labels.names, listing.notes) == (("cat", "dog"), [])
    assert listing.labelled() == f"labels: 2 for 4 of 4 images, from {tmp_path}/in/Labels.CSV"
    ignored = list_source("folder", tmp_path / "in", SourceOptions(labels="none")).notes
    assert ignored == [
        "ignored 1 file without an image's file name; if Labels.CSV holds labels, name a table of them with --labels "
        "FILE"
    ]


@pytest.mark.parametrize("name", ["train.csv", "annotations.xml", "a/0.cls", "meta.jsonl", "x.parquet", "labels.mat"])
def test_other_files_that_may_hold_labels_are_named(tmp_path, name):
    fill(tmp_path / "in", {"a/0.png": image_bytes(0), "b/1.png": image_bytes(1), name: b"x", "README.md": b"x"})
    (note,) = list_source("folder", tmp_path / "in", SourceOptions()).notes
    assert note.startswith(f"ignored 2 files without an image's file name; if {name} holds labels")


def test_labels_of_a_table_are_built(tmp_path):
    fill(tmp_path / "in", {name: image_bytes(n) for n, name in enumerate(FOUR)})
    table = fill(tmp_path, {"l.tsv": PLAIN.replace(",", "\t").encode("utf-16")}) / "l.tsv"
    built("folder", tmp_path / "in", tmp_path / "out", labels=str(table), shuffle=False)
    assert ShardedDataset.open(tmp_path / "out/train").labels == ["cat", "dog"]
    assert [sample.label for sample in samples(tmp_path / "out/train")] == [0, 0, 1, 1]
