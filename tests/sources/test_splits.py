"""Which folders are splits, by their usual names or by --splits; what is unclear is refused with the option."""

import json

import pytest
from layouts import built, fill, image_bytes, origins, samples

from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.sources.source_options import parse_splits
from latentscale.sources.split_names import common_folder, known_splits


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        ("train val test", "train val test"),
        ("Train Test", "train test"),
        ("TRAIN VALID TEST", "train val test"),
        ("Training Testing", "train test"),
        ("training_set test_set", "train test"),
        ("trainset valset testset", "train val test"),
        ("TrainingSet TestSet", "train test"),
        ("train-images test-images", "train test"),
        ("seg_train seg_test", "train test"),
        ("seg_train seg_test seg_pred", "train test -"),
        ("train2017 val2017", "train val"),
        ("ILSVRC2012_img_train ILSVRC2012_img_val", "train val"),
        ("train dev eval", "train val val"),
        ("Train Development", "train val"),
        ("training evaluation testing", "train val test"),
        ("train validation", "train val"),
        ("train data", "train -"),
        ("Training PublicTest PrivateTest", "train - -"),
        ("freight_train passenger_train", "- -"),
        ("train_1 train_2", "- -"),
        ("train_val test", "- test"),
        ("trainer tester latest", "- - -"),
        ("valley devil evaluate contest", "- - - -"),
        ("train_кот test_пёс", "- -"),
    ],
)
def test_the_usual_names_of_splits_are_known(folders, splits):
    known = known_splits(folders.split())
    assert [known.get(folder, "-") for folder in folders.split()] == splits.split()


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        (["a/b/1.png", "a/b/2.png"], "a/b/"),
        (["a/b/1.png", "a/c/2.png"], "a/"),
        (["a/b/1.png", "2.png"], ""),
        (["a/1.png", "ab/2.png"], ""),
        (["pets/Training/cat/1.png", "pets/Training/dog/1.png"], "pets/"),
        (["evaluation/train/1.png", "evaluation/test/1.png"], "evaluation/"),
        (["test/cat/1.png", "test/test/1.png"], ""),
        ([], ""),
    ],
)
def test_the_common_folder_ends_above_a_split(names, folder):
    assert common_folder(names) == folder


def images(names: list[str]) -> dict[str, bytes]:
    return {name: image_bytes(number) for number, name in enumerate(names)}


def labelled(folder) -> dict[str, str]:
    """The label of each image of a split, by the image's name."""
    labels = ShardedDataset.open(folder).labels
    return {sample.origin["name"]: "" if sample.label is None else labels[sample.label] for sample in samples(folder)}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "TEST"),
        ("Training", "Testing"),
        ("training_set/training_set", "test_set/test_set"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train2017", "val2017"),
        ("train", "eval"),
        ("Data/Train", "Data/Dev"),
        ("train/images", "test/images"),
        ("train/x/images", "test/x/images"),
        ("train/train_images", "test/test_images"),
    ],
)
def test_splits_of_usual_names_have_their_own_images_and_classes(tmp_path, train, test):
    every = [f"{split}/{animal}/{n}.png" for split in (train, test) for animal in ("cat", "dog") for n in range(2)]
    fill(tmp_path / "in", images(every))
    result = built("folder", tmp_path / "in", tmp_path / "out")
    assert result.counts == {"train": 4, "test": 4}
    for split, folder in (("train", train), ("test", test)):
        found = labelled(tmp_path / "out" / split)
        assert found == {name: name.split("/")[-2] for name in every if name.startswith(f"{folder}/")}


def test_of_splits_of_other_names_the_note_says_which_is_which(tmp_path):
    fill(tmp_path / "in", images(["Train/a/1.png", "Train/b/2.png", "dev/a/3.png", "valid/b/4.png", "Test/a/5.png"]))
    listing_notes = built_notes(tmp_path)
    assert "splits: train is Train/, val is dev/ and valid/, test is Test/" in listing_notes


def built_notes(tmp_path, **options) -> list[str]:
    from latentscale.sources.registry import list_source
    from latentscale.sources.source_options import SourceOptions

    return list_source("folder", tmp_path / "in", SourceOptions(**options)).notes


UNCLEAR = {
    "two folders that hold the same classes": (
        ["A/cat/1.png", "A/dog/2.png", "B/cat/3.png", "B/dog/4.png"],
        r"A/ and B/, which hold the same folders.*--splits train=A,test=B.*--labels folders",
    ),
    "one folder holds a part of the other's classes": (
        ["A/cat/1.png", "A/dog/2.png", "A/bat/5.png", "B/cat/3.png", "B/dog/4.png", "C/1.png"],
        r"A/ and B/, which hold the same folders.*--splits train=A,test=B",
    ),
    "classes below a folder of images": (
        ["A/images/cat/1.png", "A/images/dog/2.png", "B/images/cat/3.png", "B/images/dog/4.png"],
        r"A/ and B/, which hold the same folders",
    ),
    "splits below the classes": (
        ["cat/train/1.png", "cat/test/2.png", "dog/train/3.png", "dog/test/4.png"],
        r"splits below other folders, such as cat/test/2\.png.*--splits test=\*/test,train=\*/train",
    ),
    "one of the splits of a name of its own": (
        ["data_256/a/1.png", "data_256/b/2.png", "val_256/3.png"],
        r"data_256/, val_256/, which may be splits or classes.*--splits train=data_256,val=val_256.*--split none",
    ),
    "parts of one split": (
        ["train_1/1.png", "train_2/2.png"],
        r"train_1/, train_2/, which may be splits or classes.*--splits train=train_1,train=train_2",
    ),
    "a folder beside the splits": (
        ["seg_train/a/1.png", "seg_test/a/2.png", "seg_pred/3.png", "seg_pred/4.png"],
        r"has splits in seg_test/, seg_train/, but seg_pred/3\.png and 1 more images do not lie in.*"
        r"--splits train=Training,test=Testing.*--split none",
    ),
}


@pytest.mark.parametrize("what", UNCLEAR)
def test_what_may_be_splits_is_refused_with_the_option_that_settles_it(tmp_path, what):
    names, message = UNCLEAR[what]
    fill(tmp_path / "in", images(names))
    with pytest.raises(UserError, match=message) as refused:
        built("folder", tmp_path / "in", tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert built("folder", tmp_path / "in", tmp_path / "none", split="none").counts == {"train": len(names)}
    labels = ShardedDataset.open(tmp_path / "none/train").labels
    assert labels == sorted({name.split("/")[0] for name in names})


def test_folders_of_classes_that_look_alike_only_by_depth_are_classes(tmp_path):
    fill(tmp_path / "in", images(["cat/images/1.png", "cat/images/2.png", "dog/images/3.png"]))
    built("folder", tmp_path / "in", tmp_path / "out")
    assert ShardedDataset.open(tmp_path / "out/train").labels == ["cat", "dog"]


def test_without_labels_from_folders_their_likeness_is_noted(tmp_path):
    fill(tmp_path / "in", images(UNCLEAR["two folders that hold the same classes"][0]))
    note = "A/ and B/ hold the same folders; if they are splits, name them with --splits"
    assert note in built_notes(tmp_path, labels="none")
    assert note in built_notes(tmp_path, labels="folders")


@pytest.mark.parametrize(
    ("names", "option", "splits", "labels"),
    [
        ("A/cat/1 A/dog/2 B/cat/3", "train=A,test=B", {"train": "1 2", "test": "3"}, "cat dog"),
        ("A/cat/1 A/dog/2 B/cat/3", "train=A/, val = .\\B", {"train": "1 2", "val": "3"}, "cat dog"),
        ("d/A/cat/1 d/A/dog/2 d/B/cat/3", "train=d/A,test=d/B", {"train": "1 2", "test": "3"}, "cat dog"),
        ("d/A/cat/1 d/A/dog/2 d/B/cat/3", "train=A,test=B", {"train": "1 2", "test": "3"}, "cat dog"),
        (
            "cat/train/1 cat/test/2 dog/train/3 dog/test/4",
            "train=*/train,test=*/test",
            {"train": "1 3", "test": "2 4"},
            "cat dog",
        ),
        (
            "Training/a/1 Training/b/2 PublicTest/a/3 PrivateTest/b/4",
            "train=Training,val=PublicTest,test=PrivateTest",
            {"train": "1 2", "val": "3", "test": "4"},
            "a b",
        ),
        ("p1/a/1 p2/b/2 p3/a/3", "train=p1,train=p2,test=p3", {"train": "1 2", "test": "3"}, "a b"),
        ("p1/a/1 p2/b/2 q/a/3", "train=p*,test=q", {"train": "1 2", "test": "3"}, "a b"),
        ("train/a/1 train/b/2 test/a/3", "train=test,test=train", {"train": "3", "test": "1 2"}, "a b"),
    ],
)
@pytest.mark.parametrize("source", ["folder", "imagenet-patches"])
def test_the_user_names_the_folders_of_splits(tmp_path, names, option, splits, labels, source):
    fill(tmp_path / "in", images([f"{name}.png" for name in names.split()]))
    more = {"patch_size": 8} if source == "imagenet-patches" else {}
    result = built(source, tmp_path / "in", tmp_path / "out", splits=parse_splits(option), **more)
    found = {
        split: " ".join(sorted(name.rpartition("/")[2][0] for name in origins(tmp_path / "out" / split)))
        for split in result.counts
    }
    assert found == splits
    assert ShardedDataset.open(tmp_path / "out" / next(iter(splits))).labels == labels.split()


def test_images_outside_the_splits_that_the_user_named_are_left_out_with_a_note(tmp_path):
    fill(tmp_path / "in", images(["A/cat/1.png", "A/dog/2.png", "B/cat/3.png", "C/4.png", "5.png"]))
    notes = built_notes(tmp_path, splits=parse_splits("train=A,test=B"))
    assert "left out 2 images outside the folders that --splits names" in notes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": "train=C"}, r"--splits train=C: .*in has no images in C/: its folders are A/, B/"),
        ({"splits": "train=A,test=A/cat"}, r"A/cat/1\.png is in both train=A and test=A/cat of --splits"),
        ({"splits": "train=A", "split": "none"}, r"--splits and --split none exclude each other"),
    ],
)
def test_wrong_splits_are_refused(tmp_path, options, message):
    fill(tmp_path / "in", images(["A/cat/1.png", "B/cat/3.png"]))
    with pytest.raises(UserError, match=message):
        built_notes(tmp_path, **{**options, "splits": parse_splits(options["splits"])})


@pytest.mark.parametrize("text", ["Training", "train=", "=A", "exam=A", "train=A;test=B=", "train=./", "train:A", "\n"])
def test_another_form_of_splits_is_refused_in_one_line(text):
    if text == "train=A;test=B=":
        assert parse_splits(text) == (("train", "A;test=B="),)
        return
    if not text.strip():
        assert parse_splits(text) == ()
        return
    with pytest.raises(UserError, match=r"--splits .* is not allowed: write SPLIT=FOLDER,\.\.\.") as refused:
        parse_splits(text)
    assert "\n" not in str(refused.value)


def test_all_images_of_the_named_splits_may_be_in_train_and_test_alike(tmp_path):
    fill(tmp_path / "in", images(["A/cat/1.png", "A/dog/2.png", "B/cat/3.png"]))
    splits = parse_splits("train=A,test=B")
    assert built("folder", tmp_path / "in", tmp_path / "out", splits=splits, split="all").counts == {
        "train": 3,
        "test": 3,
    }


FLAT_VAL = ["train/a/1.png", "train/a/2.png", "train/b/3.png", "val/4.png", "val/5.png"]


def test_a_flat_split_beside_a_labelled_train_has_no_labels_and_is_named(tmp_path):
    fill(tmp_path / "in", images(FLAT_VAL))
    assert "test has no labels: its images are in no folders of classes" in built_notes(tmp_path)
    assert built("folder", tmp_path / "in", tmp_path / "out").counts == {"train": 3, "test": 2}
    assert set(labelled(tmp_path / "out/train").values()) == {"a", "b"}
    assert set(labelled(tmp_path / "out/test").values()) == {""}
    test = json.loads((tmp_path / "out/test/dataset.json").read_text())
    assert (test["labels"], "label_names" in test) == ([], False)


@pytest.mark.parametrize(
    ("names", "stray"),
    [
        (["cat/1.png", "dog/2.png", "preview.png"], r"\(cat, dog\), but preview\.png is in none of them"),
        (["cat/1.png", "dog/2.png", "x.png", "y.png"], r"but x\.png and 1 more images are in none of them"),
        (["train/a/1.png", "train/b/2.png", "train/x.png", "test/a/3.png"], r"but train/x\.png is in none of them"),
        ([*FLAT_VAL, "val/a/6.png"], r"but val/4\.png and 1 more images are in none of them"),
        (["train/1.png", "test/a/2.png", "test/b/3.png"], r"but train/1\.png is in none of them"),
    ],
)
def test_a_stray_image_does_not_take_the_labels_of_all(tmp_path, names, stray):
    fill(tmp_path / "in", images(names))
    with pytest.raises(UserError, match=rf"has folders of classes .*{stray}.*--labels FILE.*--labels none") as refused:
        built("folder", tmp_path / "in", tmp_path / "out")
    assert "\n" not in str(refused.value)
    built("folder", tmp_path / "in", tmp_path / "out", labels="none")
    assert ShardedDataset.open(tmp_path / "out/train").labels == []


def test_one_folder_beside_images_is_no_class(tmp_path):
    fill(tmp_path / "in", images(["1.png", "2.png", "more/3.png"]))
    built("folder", tmp_path / "in", tmp_path / "out")
    assert ShardedDataset.open(tmp_path / "out/train").labels == []


def test_a_label_of_the_test_split_alone_is_named(tmp_path):
    fill(tmp_path / "in", images(["train/a/1.png", "train/b/2.png", "test/a/3.png", "test/c/4.png"]))
    assert "no image of train has the label 'c'" in built_notes(tmp_path)
    fill(tmp_path / "in", images(["test/d/5.png"]))
    assert "no image of train has the labels 'c', 'd'" in built_notes(tmp_path)


def test_class_names_that_look_equal_are_one_class(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    fill(tmp_path / "in", images([f"train/{composed}/1.png", "train/tea/2.png", f"test/{decomposed}/3.png"]))
    built("folder", tmp_path / "in", tmp_path / "out")
    assert ShardedDataset.open(tmp_path / "out/train").labels == [composed, "tea"]
    assert list(labelled(tmp_path / "out/test").values()) == [composed]


def test_names_with_backslashes_are_noted_where_they_are_no_folders(tmp_path):
    fill(tmp_path / "in", images(["train\\cat\\1.png", "train\\dog\\2.png"]))
    assert any(note.startswith("2 names with a backslash") for note in built_notes(tmp_path))
