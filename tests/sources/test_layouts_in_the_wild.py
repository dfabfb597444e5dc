"""Layouts and tables as archives of the web have them: read as they are meant, or refused with what settles them."""

import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from layouts import fill, image_bytes

from latentscale.errors import UserError
from latentscale.sources.listing import Listing
from latentscale.sources.registry import list_source
from latentscale.sources.source_options import SourceOptions


def listed(root: Path, names: Sequence[str], source: str = "folder", **options: str) -> Listing:
    fill(root, {name: image_bytes(number) for number, name in enumerate(names)})
    return list_source(source, root, SourceOptions(**options))


def label_of(listing: Listing) -> dict[str, dict[str, str]]:
    """The label of each image by its name, by split; empty without one."""
    return {
        split: {item.name: "" if item.label is None else listing.labels.names[item.label] for item in items}
        for split, items in listing.splits.items()
    }


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training_set/training_set", "test_set/test_set"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train/train_images", "test/test_images"),
        ("train/images", "test/images"),
        ("train/x/images", "test/x/images"),
        ("ILSVRC2012_img_train", "ILSVRC2012_img_val"),
        ("PetsTrain", "PetsTest"),
        ("pets/Data/Train", "pets/Data/Dev"),
        ("evaluation/train", "evaluation/test"),
    ],
)
def test_folders_around_the_classes_are_no_classes(tmp_path, train, test):
    names = [f"{split}/{animal}/{n}.png" for split in (train, test) for animal in ("cat", "dog") for n in range(2)]
    assert label_of(listed(tmp_path / "in", names)) == {
        split: {name: name.split("/")[-2] for name in names if name.startswith(f"{folder}/")}
        for split, folder in (("train", train), ("test", test))
    }


ALIKE = r"A/ and B/ hold folders of the same names \(cat, dog\).*--splits train=A,test=B"
UNCLEAR = {
    "below": (
        ["cat/test/1", "cat/train/2", "dog/train/3"],
        r"such as cat/test/1\.png: .*--splits test=\*/test,train=\*/train",
    ),
    "wrapped": (["A/i/cat/1", "A/i/dog/2", "B/i/cat/3", "B/i/dog/4"], ALIKE),
    "a part": (["A/bat/1", "A/cat/2", "A/dog/3", "B/cat/4", "B/dog/5"], ALIKE),
    "and others": (["A/cat/1", "A/dog/2", "B/cat/4", "B/dog/5", "C/6"], ALIKE),
}


@pytest.mark.parametrize("how", UNCLEAR)
def test_what_may_be_splits_is_refused(tmp_path, how):
    names, message = UNCLEAR[how]
    names = [f"{name}.png" for name in names]
    with pytest.raises(UserError, match=message) as refused:
        listed(tmp_path / "in", names)
    assert "\n" not in str(refused.value)
    assert "--split none" in str(refused.value)
    found = label_of(listed(tmp_path / "in", names, split="none"))
    assert found == {"train": {name: name.partition("/")[0] for name in names}}


@pytest.mark.parametrize(
    ("names", "splits", "found"),
    [
        ("cat/train/1 cat/test/2 dog/train/3", "train=*/train,test=*/test", {"train": "1cat 3dog", "test": "2cat"}),
        ("d/A/cat/1 d/A/dog/2 d/B/cat/3", "train=d/A,test=d/B", {"train": "1cat 2dog", "test": "3cat"}),
        ("d/A/cat/1 d/A/dog/2 d/B/cat/3", "train=A/,test=.\\B", {"train": "1cat 2dog", "test": "3cat"}),
        ("p1/a/1 p2/b/2 q/a/3", "train=p*,test=q", {"train": "1a 2b", "test": "3a"}),
        ("train/a/1 train/b/2 test/a/3", "train=test,test=train", {"train": "3a", "test": "1a 2b"}),
        ("P/x/a/1 P/x/b/2 Q/3", "train=P/x", {"train": "1a 2b"}),
    ],
)
def test_the_user_names_the_folders_of_splits(tmp_path, names, splits, found):
    listing = listed(tmp_path / "in", [f"{name}.png" for name in names.split()], splits=splits)
    assert {
        split: " ".join(f"{name.rpartition('/')[2][0]}{label}" for name, label in labels.items())
        for split, labels in label_of(listing).items()
    } == found


def test_an_image_is_in_one_of_the_named_splits(tmp_path):
    with pytest.raises(UserError, match=r"the folders A and A/cat, which both hold A/cat/1\.png"):
        listed(tmp_path / "in", ["A/cat/1.png", "A/dog/2.png"], splits="train=A,test=A/cat")


def test_names_that_look_equal_are_one_class_and_backslashes_are_noted(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    names = [f"train/{composed}/1.png", "train/tea/2.png", f"test/{decomposed}/3.png"]
    assert listed(tmp_path / "a", names).labels.names == (composed, "tea")
    notes = listed(tmp_path / "b", ["cat\\1.png", "dog\\2.png"]).notes
    assert any(note.startswith("2 names with a backslash, which is a part of the file's name here") for note in notes)


FOUR = ("0.png", "1.png", "2.png", "3.png")
PLAIN = "file,label\n0.png,cat\n1.png,cat\n2.png,dog\n3.png,dog\n"
WRITTEN = {
    "Excel's line of the separator": "sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n"),
    "bars": PLAIN.replace(",", "|"),
    "old Macintosh lines": PLAIN.replace("\n", "\r"),
    "empty rows and columns": "file,label,,\n0.png,cat,,\n1.png,cat,,\n ,,,\n2.png,dog,,\n3.png,dog\n,,,\n",
    "a column before that is empty": ",file,label\n,0.png,cat\n,1.png,cat\n,2.png,dog\n,3.png,dog\n",
    "quotes after spaces": 'file, label\n"0.png", "cat"\n1.png, "cat"\n2.png,dog\n3.png,dog\n',
    "a number before the path": "id,image_path,label\n0,0.png,cat\n1,1.png,cat\n2,2.png,dog\n3,3.png,dog\n",
    "a path before the name": "path,image,label\n/a,0.png,cat\n/b,1.png,cat\n/c,2.png,dog\n/d,3.png,dog\n",
    "a title of two words": PLAIN.replace("file", "Image Index"),
    "a title in capitals": PLAIN.replace("file", "File_Name"),
    "paths of another machine": re.sub("(.[.])", r"/kaggle/input/pets/\1", PLAIN),
    "paths of Windows": re.sub("(.[.])", r"C:\\\\pets\\\\\1", PLAIN),
    "paths without suffixes": re.sub("(.)[.]png", r"pets/\1", PLAIN),
    "other images of the same name": PLAIN + "a/4.png,dog\nb/4.png,cat\n",
    "labels in a column called index": PLAIN.replace("label", "index"),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_a_table_is_read_however_it_was_written(tmp_path, how):
    table = fill(tmp_path, {"l.csv": WRITTEN[how].encode()}) / "l.csv"
    found = label_of(listed(tmp_path / "in", FOUR, labels=str(table)))
    assert found == {"train": {"0.png": "cat", "1.png": "cat", "2.png": "dog", "3.png": "dog"}}


@pytest.mark.parametrize(
    ("names", "rows", "message"),
    [
        (("p1/a.png", "p2/a.png"), ("a.png",), r"names a\.png, which may be p1/a\.png or p2/a\.png: write names with"),
        (("a.png",), ("train/a.png", "test/a.png"), r"names train/a\.png and test/a\.png, which may both be a\.png"),
        (("ba.png", "b.png"), ("a.png", "b.png"), r"has no label for ba\.png"),
        (("x/a.png", "x/b.png"), ("y/a.png", "x/b.png"), r"has no label for x/a\.png"),
    ],
)
def test_names_that_fit_several_or_none_are_refused(tmp_path, names, rows, message):
    text = "file,label\n" + "".join(f"{row},{number}\n" for number, row in enumerate(rows))
    table = fill(tmp_path, {"l.csv": text.encode()}) / "l.csv"
    with pytest.raises(UserError, match=message) as refused:
        listed(tmp_path / "in", names, labels=str(table))
    assert "\n" not in str(refused.value)


def test_a_table_may_leave_out_the_folders_of_images(tmp_path):
    names = ("part_1/a.png", "part_2/b.png", "part_2/c.JPG")
    table = fill(tmp_path, {"l.csv": b"image_id,dx\na,mel\nb,nv\nc,nv\n"}) / "l.csv"
    found = label_of(listed(tmp_path / "in", names, labels=str(table)))["train"]
    assert list(found.values()) == ["mel", "nv", "nv"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",file,label\na,0.png,cat\nb,1.png,cat\nc,2.png,dog\nd,3.png,dog\n", r"column 1 has no title"),
        ("file,label,\n0.png,a,x\n1.png,a,x\n2.png,b,y\n3.png,b,y\n", r"row 2 \('0\.png'\) has 3 values"),
    ],
)
def test_a_column_of_labels_without_a_title_is_not_dropped(tmp_path, text, message):
    table = fill(tmp_path, {"l.csv": text.encode()}) / "l.csv"
    with pytest.raises(UserError, match=message):
        listed(tmp_path / "in", FOUR, labels=str(table))


def test_labels_that_look_equal_are_one(tmp_path):
    table = fill(tmp_path, {"l.csv": PLAIN.replace("cat", "caf\u00e9", 1).replace("cat", "cafe\u0301").encode()})
    assert listed(tmp_path / "in", FOUR, labels=str(table / "l.csv")).labels.names == ("caf\u00e9", "dog")
    half = fill(tmp_path, {"l.json": json.dumps(dict.fromkeys(FOUR, "\ud800")).encode()}) / "l.json"
    with pytest.raises(UserError, match="is not valid Unicode"):
        listed(tmp_path / "in", FOUR, labels=str(half))


@pytest.mark.parametrize("said", [{"labels": None}, {"labels": None, "name": "x"}, {"labels": [], "name": "x"}, {}])
def test_a_file_that_says_there_are_no_labels_is_believed_and_named(tmp_path, said):
    fill(tmp_path / "in", {"dataset.json": json.dumps(said).encode()})
    listing = listed(tmp_path / "in", ["00000/img0.png", "00001/img1.png"])
    assert listing.labels.names == ()
    (note,) = listing.notes
    assert "dataset.json: it " in note


def test_label_files_are_found_in_any_case_of_letters(tmp_path):
    fill(tmp_path / "in", {"Labels.CSV": PLAIN.encode()})
    assert listed(tmp_path / "in", FOUR).labels.names == ("cat", "dog")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, name in enumerate(FOUR):
            archive.writestr(f"x/{name}", image_bytes(number))
        archive.writestr("x/LABELS.csv", PLAIN)
    listing = list_source("zip", tmp_path / "a.zip", SourceOptions())
    assert (listing.labels.names, listing.notes) == (
        ("cat", "dog"),
        [f"labels of 4 images from {tmp_path}/a.zip member x/LABELS.csv"],
    )


@pytest.mark.parametrize("name", ["train.csv", "a/0.cls", "meta.tsv", "x.parquet", "labels.mat", "a/0.txt", "a/0.xml"])
def test_other_files_that_may_hold_labels_are_named(tmp_path, name):
    fill(tmp_path / "in", {name: b"x", "readme.txt": b"x", "LICENSE-images.txt": b"x", ".hidden.csv": b"x"})
    note = listed(tmp_path / "in", ["a/0.png", "b/1.png"]).notes[0]
    assert note == (
        f"ignored 3 files without an image's file name; {name} may hold labels, which are not read: --labels FILE reads"
        " a table of them"
    )
