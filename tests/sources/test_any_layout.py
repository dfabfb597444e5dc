"""Any folder or archive: splits and labels by names or files of labels, one size, patches."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from layouts import (
    built,
    contents,
    fill,
    image_bytes,
    noise,
    pixels,
    samples,
)
from PIL import Image

from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.sources.listing import display_name


def described(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text())


def test_a_folder_has_splits_and_labels_by_its_folders(tmp_path):
    names = ("train/b/1.png", "train/a/deep/er/2.png", "val/a/3.png", "train/.hidden/4.png", "train/a/Thumbs.db")
    fill(tmp_path / "in", {name: image_bytes(number) for number, name in enumerate(names)})
    result = built("folder", tmp_path / "in", tmp_path / "out")
    assert result.counts == {"train": 2, "test": 1}
    train = ShardedDataset.open(tmp_path / "out/train")
    assert (train.labels, train.name, train.licence) == (["a", "b"], "in", "unknown")
    assert sorted((sample.label, sample.origin["name"]) for sample in samples(tmp_path / "out/train")) == [
        (0, "train/a/deep/er/2.png"),
        (1, "train/b/1.png"),
    ]
    built("folder", tmp_path / "in", tmp_path / "one", split="none", labels="none", name="mine", licence="CC0")
    one = ShardedDataset.open(tmp_path / "one/train")
    assert (one.count, one.labels, one.name, one.licence) == (3, [], "mine", "CC0")


def test_labels_come_from_csv_and_json(tmp_path):
    files = {f"{number}.png": image_bytes(number) for number in range(4)}
    fill(
        tmp_path / "csv",
        {**files, "labels.csv": b"file,kind,size\n0.png,cat,10\n1.png,dog,9\n2.png,dog,10\n3.png,cat,9"},
    )
    built("folder", tmp_path / "csv", tmp_path / "a", shuffle=False)
    dataset = ShardedDataset.open(tmp_path / "a/train")
    assert dataset.labels == ["kind=cat, size=9", "kind=cat, size=10", "kind=dog, size=9", "kind=dog, size=10"]
    assert [sample.label for sample in samples(tmp_path / "a/train")] == [1, 2, 3, 0]
    rows = {"labels": [[f"{number}.png", number % 2] for number in range(4)]}
    fill(tmp_path / "json", {**files, "dataset.json": json.dumps(rows).encode()})
    built("folder", tmp_path / "json", tmp_path / "b", shuffle=False)
    assert [sample.label for sample in samples(tmp_path / "b/train")] == [0, 1, 0, 1]
    named = {f"{number}.png": "xyyx"[number] for number in range(4)}
    fill(tmp_path / "named", {**files, "labels.json": json.dumps(named).encode()})
    built("folder", tmp_path / "named", tmp_path / "d", shuffle=False)
    assert ShardedDataset.open(tmp_path / "d/train").labels == ["x", "y"]
    assert [sample.label for sample in samples(tmp_path / "d/train")] == [0, 1, 1, 0]
    table = fill(tmp_path, {"my.json": json.dumps({f"{n}.png": "xy"[n // 2] for n in range(4)}).encode()}) / "my.json"
    built("folder", tmp_path / "json", tmp_path / "c", labels=str(table), shuffle=False)
    assert ShardedDataset.open(tmp_path / "c/train").labels == ["x", "y"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"file,kind\n0.png,cat\n",
            r"labels\.csv has no label for 1\.png \(of 2 images in .*\): add the missing labels",
        ),
        (b"0.png,cat\n1.png,dog\n", r"labels\.csv is not a label file \(its first line must be titles"),
        (
            b"file,kind\n0.png\n1.png,dog\n",
            r"labels\.csv is not a label file \(row 2 \('0\.png'\) has 1 values, but its first row has 2 titles\)",
        ),
        (b"\xff\xfe", r"labels\.csv is not a label file \(its first line must be titles.*is missing"),
        (
            b"file,kind\n0.png,cat\n1.png,dog\n0.png,dog",
            r"labels\.csv is not a label file \('0\.png' stands in it twice",
        ),
    ],
)
def test_wrong_labels_are_named(tmp_path, content, message):
    fill(tmp_path / "in", {"0.png": image_bytes(0), "1.png": image_bytes(1), "labels.csv": content})
    with pytest.raises(UserError, match=message) as refused:
        built("folder", tmp_path / "in", tmp_path / "out")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [b'{"0.png": "cat", "1.png": "dog", "0.png": "dog"}', b'{"labels": [["0.png", 1], ["1.png", 0], ["0.png", 0]]}'],
)
def test_an_image_of_two_labels_is_named(tmp_path, content):
    fill(tmp_path / "in", {"0.png": image_bytes(0), "1.png": image_bytes(1), "labels.json": content})
    with pytest.raises(UserError, match=r"labels\.json is not a label file \('0\.png' stands in it twice\)"):
        built("folder", tmp_path / "in", tmp_path / "out")


def test_too_many_labels_at_once_are_refused(tmp_path):
    titles = ["file", *(f"l{number}" for number in range(13))]
    rows = [[f"{n}.png", *(str(n) for _ in range(13))] for n in range(2)]
    text = "\n".join(",".join(row) for row in (titles, *rows)).encode()
    fill(tmp_path / "in", {"0.png": image_bytes(0), "1.png": image_bytes(1), "labels.csv": text})
    with pytest.raises(UserError, match="make 8192 combinations, more than the 4096"):
        built("folder", tmp_path / "in", tmp_path / "out")


def test_grey_stays_grey_only_where_all_are(tmp_path):
    grey, colourful = tmp_path / "grey", tmp_path / "colour"
    for number in range(3):
        grey.mkdir(exist_ok=True)
        noise(number).convert("L").save(grey / f"{number}.png")
    built("folder", grey, tmp_path / "a")
    assert ShardedDataset.open(tmp_path / "a/train").shape == (1, 8, 8)
    fill(colourful, contents(grey))
    noise(9).save(colourful / "9.png")
    built("folder", colourful, tmp_path / "b")
    assert ShardedDataset.open(tmp_path / "b/train").shape == (3, 8, 8)
    # a grey file holds what it will be read as, so it is kept
    assert samples(tmp_path / "b/train")[0].image == (grey / "0.png").read_bytes()
    built("folder", colourful, tmp_path / "c", channels=1)
    expected = np.asarray(noise(9).convert("L"))
    np.testing.assert_array_equal(pixels(tmp_path / "c/train")[3, 0], expected)


def test_images_of_several_sizes_need_a_resolution(tmp_path):
    fill(tmp_path / "in", {"a.png": image_bytes(1, (8, 6)), "b.png": image_bytes(2, (8, 6)), "c.png": image_bytes(3)})
    with pytest.raises(UserError, match=r"a\.png is 6x8 pixels, c\.png 8x8: resize them to one size with --resolution"):
        built("folder", tmp_path / "in", tmp_path / "out")
    (tmp_path / "in/c.png").unlink()
    built("folder", tmp_path / "in", tmp_path / "out")
    assert ShardedDataset.open(tmp_path / "out/train").shape == (3, 6, 8)


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_resizing_is_pillows_lanczos_on_the_centre(tmp_path, fit):
    image = noise(1, (21, 16))
    (tmp_path / "in").mkdir()
    image.save(tmp_path / "in/a.png")
    built("folder", tmp_path / "in", tmp_path / "out", resolution=8, fit=fit)
    area = image.crop((2, 0, 18, 16)) if fit == "crop" else image
    expected = np.asarray(area.resize((8, 8), Image.Resampling.LANCZOS)).transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels(tmp_path / "out/train")[0], expected)
    steps = described(tmp_path / "out/train")["transform"]["steps"]
    assert "resized to 8x8, Lanczos with antialiasing" in steps
    assert ("centre crop to a square" in steps) == (fit == "crop")


def test_grid_patches_tile_the_image_and_keep_their_place(tmp_path):
    image = noise(3, (70, 40))
    (tmp_path / "in/n01").mkdir(parents=True)
    image.save(tmp_path / "in/n01/parent.png")
    built("imagenet-patches", tmp_path / "in", tmp_path / "out", patches="grid", patch_size=16)
    found = samples(tmp_path / "out/train")
    assert len(found) == 8
    for sample, patch in zip(found, pixels(tmp_path / "out/train"), strict=True):
        left, top = sample.origin["left"], sample.origin["top"]
        assert (left, top) == (3 + 16 * sample.origin["column"], 4 + 16 * sample.origin["row"])
        expected = np.asarray(image.crop((left, top, left + 16, top + 16))).transpose(2, 0, 1)
        np.testing.assert_array_equal(patch, expected)
        assert sample.origin["name"] == "n01/parent.png"
        assert (sample.origin["parent_height"], sample.origin["parent_width"]) == (40, 70)


def test_a_patch_has_the_label_of_its_images_folder(tmp_path):
    for number, name in enumerate(("n01/a", "n02/b", "n02/c")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        noise(number, (32, 16)).save(tmp_path / "in" / f"{name}.png")
    built("imagenet-patches", tmp_path / "in", tmp_path / "out", patches="grid", patch_size=16)
    assert ShardedDataset.open(tmp_path / "out/train").labels == ["n01", "n02"]
    found = [(sample.origin["name"], sample.label) for sample in samples(tmp_path / "out/train")]
    assert sorted(found) == [
        (f"{name}.png", label) for name, label in (("n01/a", 0), ("n02/b", 1), ("n02/c", 1)) for _ in range(2)
    ]


def test_random_patches_depend_on_their_own_image_and_the_seed_alone(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    for number in range(3):
        noise(number, (40, 50)).save(root / f"{number}.png")
    options = {"patches_per_image": 20, "patch_size": 8}
    built("imagenet-patches", root, tmp_path / "a", **options)
    found = samples(tmp_path / "a/train")
    assert len(found) == 60
    for sample, patch in zip(found, pixels(tmp_path / "a/train"), strict=True):
        left, top = sample.origin["left"], sample.origin["top"]
        image = Image.open(root / sample.origin["name"]).crop((left, top, left + 8, top + 8))
        np.testing.assert_array_equal(patch, np.asarray(image).transpose(2, 0, 1))
    assert len({(sample.origin["left"], sample.origin["top"]) for sample in found}) > 50
    (root / "0.png").unlink()
    built("imagenet-patches", root, tmp_path / "b", **options)
    assert samples(tmp_path / "b/train") == found[20:]
    built("imagenet-patches", root, tmp_path / "c", **options, seed=1)
    assert samples(tmp_path / "c/train") != found[20:]
    with pytest.raises(UserError, match=r"1\.png is 50x40 pixels, smaller than a patch of 64x64"):
        built("imagenet-patches", root, tmp_path / "d", patch_size=64)


def test_a_zip_is_laid_out_like_a_folder(tmp_path):
    rows = {"labels": [["00000/img0.png", 1], ["00000/img1.png", 0]]}
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("00000/img0.png", image_bytes(0))
        archive.writestr("00000/img1.png", image_bytes(1))
        archive.writestr("dataset.json", json.dumps(rows))
    built("zip", tmp_path / "data.zip", tmp_path / "out", shuffle=False)
    found = samples(tmp_path / "out/train")
    assert [(sample.origin["name"], sample.label) for sample in found] == [("00000/img0.png", 1), ("00000/img1.png", 0)]
    assert found[0].image == image_bytes(0)


def test_names_that_cannot_be_printed_are_shown_escaped():
    assert display_name("plain ü.png") == "plain ü.png"
    assert display_name("a\nb\udcff.png") == r"a\nb\udcff.png"


@pytest.mark.parametrize("stray", ["logo.png", "extra/x.png"])
@pytest.mark.parametrize("split", ["published", "all"])
def test_images_beside_the_splits_do_not_make_them_vanish(tmp_path, stray, split):
    names = ("train/cat/0.png", "train/dog/1.png", "val/cat/2.png", "val/dog/3.png", stray)
    fill(tmp_path / "in", {name: image_bytes(number) for number, name in enumerate(names)})
    with pytest.raises(
        UserError, match=rf"in has splits in train/, val/, but {stray} does not.*--split none"
    ) as refused:
        built("folder", tmp_path / "in", tmp_path / "out", split=split)
    assert "\n" not in str(refused.value)
    if "/" not in stray:
        with pytest.raises(UserError, match=rf"{stray} is in no class folder"):
            built("folder", tmp_path / "in", tmp_path / "out", split="none")
    labels = "auto" if "/" in stray else "none"
    assert built("folder", tmp_path / "in", tmp_path / "out", split="none", labels=labels).counts == {"train": 5}
    (tmp_path / "in" / stray).unlink()
    assert built("folder", tmp_path / "in", tmp_path / "new").counts == {"train": 2, "test": 2}
    assert ShardedDataset.open(tmp_path / "new/train").labels == ["cat", "dog"]


def test_a_file_of_labels_for_a_part_of_the_images_is_not_left_alone_in_silence(tmp_path):
    fill(tmp_path / "in", {"a/0.png": image_bytes(0), "b/1.png": image_bytes(1), "a/labels.csv": b"file,x\n0.png,y"})
    with pytest.raises(UserError, match=r"a label file, a/labels\.csv, that is not in the images' top folder"):
        built("folder", tmp_path / "in", tmp_path / "out")
    built("folder", tmp_path / "in", tmp_path / "out", labels="folders")
    assert ShardedDataset.open(tmp_path / "out/train").labels == ["a", "b"]
