"""Published layouts become the splits, labels and pixels that they mean."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from layouts import (
    CELEBA_ATTRIBUTES,
    afhq,
    built,
    celeba,
    celeba_values,
    colour,
    contents,
    digit_arrays,
    fill,
    idx_bytes,
    image_bytes,
    mnist,
    mnist_c,
    origins,
    pixels,
    samples,
)

from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.shards.verifying import verify


def described(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text())


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "folders of a thousand"])
def test_ffhq_is_split_by_the_numbers_of_its_files(tmp_path, nested):
    numbers = (0, 7, 49_999, 50_000, 69_999)
    for number in numbers:
        folder = f"{number // 1000 * 1000:05d}/" if nested else ""
        fill(tmp_path / "in", {f"{folder}{number:05d}.png": image_bytes(number % 1000)})
    fill(tmp_path / "in", {"LICENSE.txt": b"text"})
    built("ffhq", tmp_path / "in", tmp_path / "out")
    assert [sample.origin["number"] for sample in samples(tmp_path / "out/train")] == [0, 7, 49_999]
    assert [sample.origin["number"] for sample in samples(tmp_path / "out/test")] == [50_000, 69_999]
    assert ShardedDataset.open(tmp_path / "out/train").shape == (3, 8, 8)
    assert pixels(tmp_path / "out/train")[1, :, 0, 0].tolist() == list(colour(7))
    assert not verify(tmp_path / "out", 0).broken


def test_ffhq_of_two_resolutions_at_once_is_refused(tmp_path):
    fill(tmp_path / "in", {"images256/00001.png": image_bytes(1), "thumbnails/00001.png": image_bytes(1)})
    with pytest.raises(UserError, match=r"images256/00001\.png and thumbnails/00001\.png have the same number"):
        built("ffhq", tmp_path / "in", tmp_path / "out")
    fill(tmp_path / "other", {"face.png": image_bytes(1)})
    with pytest.raises(UserError, match=r"face\.png is not named by a number below 70000"):
        built("ffhq", tmp_path / "other", tmp_path / "out")


@pytest.mark.parametrize(
    ("folders", "kind", "name"), [(("train", "val"), "JPEG", "afhq"), (("train", "test"), "PNG", "afhq-v2")]
)
def test_afhq_keeps_classes_and_bytes_and_is_shuffled(tmp_path, folders, kind, name):
    afhq(tmp_path / "in", folders, kind, per_class=20)
    built("afhq", tmp_path / "in", tmp_path / "out")
    train = ShardedDataset.open(tmp_path / "out/train")
    assert (train.name, train.count, train.labels) == (name, 60, ["cat", "dog", "wild"])
    assert train.label_counts().tolist() == [20, 20, 20]
    found = samples(tmp_path / "out/train")
    labels = [sample.label for sample in found]
    assert labels != sorted(labels)
    for sample in found:
        # no pixel changes, so the files are kept
        file = tmp_path / "in" / sample.origin["name"]
        assert sample.image == file.read_bytes()
        assert file.parent.name == train.labels[sample.label]
    assert len(samples(tmp_path / "out/test")) == 60
    built("afhq", tmp_path / "in", tmp_path / "unshuffled", shuffle=False)
    assert origins(tmp_path / "unshuffled/train") == sorted(origins(tmp_path / "out/train"))


def test_all_images_may_be_in_train_and_test_alike(tmp_path):
    afhq(tmp_path / "in")
    result = built("afhq", tmp_path / "in", tmp_path / "out", split="all")
    assert result.counts == {"train": 18, "test": 18}
    assert contents(tmp_path / "out/train") == contents(tmp_path / "out/test")
    assert (tmp_path / "out/train/shard-000000.tar").samefile(tmp_path / "out/test/shard-000000.tar")
    assert not verify(tmp_path / "out", 0).broken


@pytest.mark.parametrize("as_csv", [False, True], ids=["txt", "csv"])
def test_celeba_has_its_partitions_and_chosen_attributes(tmp_path, as_csv):
    celeba(tmp_path / "in", as_csv=as_csv)
    options = {"attributes": ("Smiling", "Bangs"), "resolution": 16, "fit": "stretch"}
    assert built("celeba", tmp_path / "in", tmp_path / "out", **options).counts == {"train": 9, "val": 4, "test": 3}
    train = ShardedDataset.open(tmp_path / "out/train")
    assert (train.label_sizes, train.shape) == ((2, 2), (3, 16, 16))
    assert train.labels[1] == "Smiling=0, Bangs=1"
    for sample in samples(tmp_path / "out/train"):
        number = int(Path(sample.origin["name"]).stem)
        values = dict(zip(CELEBA_ATTRIBUTES, celeba_values(number), strict=True))
        smiling, bangs = train.label_table()[sample.label]
        assert (smiling, bangs) == (values["Smiling"] == 1, values["Bangs"] == 1)
        assert sample.origin["attributes"] == [name for name, value in values.items() if value == 1]
    assert described(tmp_path / "out/train")["label_names"] == ["Smiling", "Bangs"]


def test_celeba_without_attributes_has_no_labels_and_names_what_is_amiss(tmp_path):
    root = celeba(tmp_path / "in")
    built("celeba", root, tmp_path / "out")
    assert ShardedDataset.open(tmp_path / "out/train").labels == []
    with pytest.raises(UserError, match="--attributes Happy does not exist in CelebA: choose from Bald, Bangs"):
        built("celeba", root, tmp_path / "new", attributes=("Happy",))
    (root / "img_align_celeba/000003.jpg").unlink()
    with pytest.raises(UserError, match=r"000003\.jpg is in CelebA's lists, but the file is missing"):
        built("celeba", root, tmp_path / "new")
    built("celeba", root, tmp_path / "new", on_error="skip")
    assert described(tmp_path / "new/train")["left_out"] == ["000003.jpg is in CelebA's lists, but the file is missing"]
    (root / "Anno/list_attr_celeba.txt").unlink()
    with pytest.raises(UserError, match=r"holds no list_attr_celeba\.txt"):
        built("celeba", root, tmp_path / "newer")


@pytest.mark.parametrize("gz", [True, False], ids=["gzipped", "plain"])
def test_idx_files_keep_their_order_and_are_padded(tmp_path, gz):
    mnist(tmp_path / "mnist", gz=gz)
    built("idx", tmp_path / "mnist", tmp_path / "out", pad=32)
    train = ShardedDataset.open(tmp_path / "out/train")
    assert (train.name, train.shape, train.labels) == ("mnist", (1, 32, 32), list("0123456789"))
    images, labels = digit_arrays(20, 40)
    found = pixels(tmp_path / "out/test")[:, 0]
    np.testing.assert_array_equal(found[:, 2:30, 2:30], images)
    assert found.sum() == images.sum()
    assert [sample.label for sample in samples(tmp_path / "out/test")] == labels.tolist()
    assert origins(tmp_path / "out/test")[3] == f"t10k-images-idx3-ubyte{'.gz' if gz else ''}[3]"
    with pytest.raises(UserError, match="is 28x28 pixels, larger than --pad 24"):
        built("idx", tmp_path / "mnist", tmp_path / "new", pad=24)


def test_emnist_is_turned_and_its_mapping_read(tmp_path):
    mnist(tmp_path / "in", prefix="emnist-letters-")
    fill(
        tmp_path / "in", {"emnist-letters-mapping.txt": "\n".join(f"{n} {65 + n} {97 + n}" for n in range(10)).encode()}
    )
    built("idx", tmp_path / "in", tmp_path / "out")
    train = ShardedDataset.open(tmp_path / "out/train")
    assert (train.name, train.labels[:2]) == ("emnist-letters", ["Aa", "Bb"])
    images, _ = digit_arrays(40)
    np.testing.assert_array_equal(pixels(tmp_path / "out/train")[:, 0], images.transpose(0, 2, 1))
    mnist(tmp_path / "in", prefix="emnist-digits-")
    with pytest.raises(UserError, match="several sets of images: choose one of digits, letters with --subset"):
        built("idx", tmp_path / "in", tmp_path / "new")
    built("idx", tmp_path / "in", tmp_path / "new", subset="digits")
    assert ShardedDataset.open(tmp_path / "new/train").name == "emnist-digits"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an idx file"),
        (b"\0\0\x0d\x03" + b"\0" * 12, "is not an idx file"),
        (idx_bytes(digit_arrays(40)[0])[:-1], "header promises 31360 bytes, but it holds (more|31359)"),
        (idx_bytes(digit_arrays(40)[0]) + b"x", "header promises 31360 bytes, but it holds (more|31359)"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "header gives the array shape"),
        (idx_bytes(digit_arrays(39)[0]), "has 40 labels, but train-images-idx3-ubyte has 39 images"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path, content, message):
    root = mnist(tmp_path / "in", gz=False)
    (root / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(UserError, match=rf"train-(images|labels).*{message}") as refused:
        built("idx", root, tmp_path / "out")
    assert "\n" not in str(refused.value)


def test_mnist_c_pairs_with_its_originals_by_position(tmp_path):
    mnist_c(tmp_path / "c")
    mnist(tmp_path / "mnist")
    built("mnist-c", tmp_path / "c", tmp_path / "out", originals=tmp_path / "mnist", pad=32)
    test = ShardedDataset.open(tmp_path / "out/test")
    assert (test.label_sizes, test.count) == ((3, 10), 36)
    assert test.labels[11] == "corruption=fog, digit=1"
    identity, fog, stripe = pixels(tmp_path / "out/test")[:, 0, 2:30, 2:30].reshape(3, 12, 28, 28)
    images, labels = digit_arrays(12, 40)
    np.testing.assert_array_equal(identity, images)
    np.testing.assert_array_equal(fog, images // 2 + 1)
    np.testing.assert_array_equal(stripe, images // 2 + 2)
    found = samples(tmp_path / "out/test")
    for number, sample in enumerate(found):
        kind, digit = test.label_table()[sample.label]
        assert (kind, digit) == (number // 12, labels[number % 12])
        assert (sample.origin["corruption"], sample.origin["number"]) == (
            ("identity", "fog", "stripe")[kind],
            number % 12,
        )


def test_mnist_c_alone_has_corruptions_as_labels(tmp_path):
    mnist_c(tmp_path / "c")
    built("mnist-c", tmp_path / "c", tmp_path / "out", corruptions=("stripe",))
    assert ShardedDataset.open(tmp_path / "out/test").labels == ["stripe"]
    with pytest.raises(UserError, match=r"--corruptions snow is not in .*: choose from fog, stripe"):
        built("mnist-c", tmp_path / "c", tmp_path / "new", corruptions=("snow",))
    mnist(tmp_path / "few", test=5)
    with pytest.raises(UserError, match="they do not pair"):
        built("mnist-c", tmp_path / "c", tmp_path / "new", originals=tmp_path / "few")


@pytest.mark.slow
def test_digits_and_photographs_come_with_libraries(tmp_path):
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    assert built("digits", None, tmp_path / "digits").counts == {"train": 1500, "test": 297}
    assert ShardedDataset.open(tmp_path / "digits/train").label_counts().sum() == 1500
    counts = built("photos", None, tmp_path / "photos").counts
    assert counts["train"] + counts["test"] > 5000
    assert ShardedDataset.open(tmp_path / "photos/train").shape == (3, 32, 32)
    train, test = (set(origins(tmp_path / f"photos/{split}")) for split in ("train", "test"))
    assert not train & test
    assert not verify(tmp_path / "photos", 0).broken


def test_what_a_source_does_not_use_is_refused(tmp_path):
    for source, path, options, message in (
        ("cifar", None, {}, "source cifar does not exist: use one of folder, zip"),
        ("ffhq", tmp_path, {"attributes": ("Male",)}, "--attributes is not used by ffhq"),
        ("ffhq", None, {}, "PATH is missing"),
        ("digits", tmp_path, {}, "PATH .* is not used by digits"),
        ("folder", tmp_path / "none", {}, "is not a folder"),
        ("folder", tmp_path, {}, "holds no images"),
        ("zip", tmp_path / "none.zip", {}, "is not a file"),
        ("afhq", tmp_path, {"split": "both"}, "--split both is not allowed: it must be one of published, all, none"),
        ("photos", None, {"patches": "spiral"}, "--patches spiral is not allowed: it must be one of random, grid"),
        ("photos", None, {"patches_per_image": 3}, "is for --patches random"),
    ):
        with pytest.raises(UserError, match=message) as refused:
            built(source, path, tmp_path / "out", **options)
        assert "\n" not in str(refused.value)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(12), r"label 10 is 10, not a digit from 0 to 9"),
        (np.arange(12) - 1, r"label 0 is -1, not a digit"),
        (np.full(12, 256), r"label 0 is 256, not a digit"),
        (np.zeros(12), r"cannot be read \(it holds float64, not whole numbers\)"),
        (np.zeros(11, np.uint8), r"has labels of shape \[11\] for 12 images"),
        (b"nonsense", r"cannot be read \("),
    ],
)
def test_labels_of_mnist_c_are_digits(tmp_path, labels, message):
    mnist_c(tmp_path / "c", ("fog",))
    path = tmp_path / "c/fog/test_labels.npy"
    if isinstance(labels, bytes):
        path.write_bytes(labels)
    else:
        np.save(path, labels)
    with pytest.raises(UserError, match=rf"fog/test_labels\.npy.*{message}") as refused:
        built("mnist-c", tmp_path / "c", tmp_path / "out")
    assert "\n" not in str(refused.value)


def test_labels_of_mnist_c_agree_with_the_originals(tmp_path):
    mnist_c(tmp_path / "c")
    mnist(tmp_path / "mnist")
    digits = np.arange(12) % 10
    np.save(tmp_path / "c/fog/test_labels.npy", digits)
    built("mnist-c", tmp_path / "c", tmp_path / "out", originals=tmp_path / "mnist")
    digits[7] = 3
    np.save(tmp_path / "c/fog/test_labels.npy", digits)
    with pytest.raises(
        UserError, match=r"fog/test_labels\.npy says that image 7 is a 3, but --originals says that it is a 7"
    ):
        built("mnist-c", tmp_path / "c", tmp_path / "new", originals=tmp_path / "mnist")


def test_labels_of_one_idx_split_alone_are_not_dropped_in_silence(tmp_path):
    root = mnist(tmp_path / "in", gz=False)
    (root / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte has no label file next to it"):
        built("idx", root, tmp_path / "out")
    (root / "train-labels-idx1-ubyte").unlink()
    built("idx", root, tmp_path / "out")
    assert ShardedDataset.open(tmp_path / "out/train").labels == []


def idx_of(array: np.ndarray, code: int) -> bytes:
    """An idx file of any type, by the format's code for it."""
    kind = {9: "i1", 11: ">i2", 12: ">i4", 13: ">f4"}[code]
    return bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(kind).tobytes()


@pytest.mark.parametrize("prefix", ["", "qmnist-"])
def test_the_class_is_the_first_column_of_qmnists_labels(tmp_path, prefix):
    columns = np.arange(320).reshape(40, 8)
    columns[:, 0] = np.arange(40) % 7 * 3
    for part, chosen, pack in (("train", slice(0, 30), gzip.compress), ("test", slice(30, 40), bytes)):
        images = digit_arrays(40)[0][chosen]
        end = ".gz" if pack is gzip.compress else ""
        fill(tmp_path / "q", {f"{prefix}{part}-images-idx3-ubyte{end}": pack(idx_bytes(images))})
        fill(tmp_path / "q", {f"{prefix}{part}-labels-idx2-int{end}": pack(idx_of(columns[chosen], 12))})
    built("idx", tmp_path / "q", tmp_path / "out")
    train = ShardedDataset.open(tmp_path / "out/train")
    assert (train.name, train.labels) == (prefix.rstrip("-") or "q", ["0", "3", "6", "9", "12", "15", "18"])
    found = [sample.label for split in ("train", "test") for sample in samples(tmp_path / "out" / split)]
    assert found == [number % 7 for number in range(40)]
    # unlike EMNIST's, its images stand upright
    np.testing.assert_array_equal(pixels(tmp_path / "out/train")[:, 0], digit_arrays(30)[0])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels-idx2-int", idx_of(np.zeros((6, 5)), 12), r"has shape \[6, 5\], neither \[images\] nor QMNIST's"),
        ("labels-idx2-int", idx_of(np.zeros((4, 8)), 12), "has 4 labels, but train-images-idx3-ubyte has 6 images"),
        ("labels-idx1-int", idx_of(np.zeros(6), 13), "holds float32, not whole numbers"),
        ("labels.csv", b"5\n0\n", "is no idx file of labels such as train-labels-idx1-ubyte"),
        ("labels-idx1-ubyte.xz", b"", "is no idx file of labels such as train-labels-idx1-ubyte"),
    ],
)
def test_labels_beside_idx_images_are_read_or_named(tmp_path, name, content, message):
    fill(tmp_path / "in", {"train-images-idx3-ubyte": idx_bytes(digit_arrays(6)[0]), f"train-{name}": content})
    with pytest.raises(UserError, match=rf"train-{name}.*{message}") as refused:
        built("idx", tmp_path / "in", tmp_path / "out")
    assert "\n" not in str(refused.value)
    built("idx", tmp_path / "in", tmp_path / "out", labels="none")
    assert ShardedDataset.open(tmp_path / "out/train").labels == []
    with pytest.raises(UserError, match=r"--labels folders is not for idx.*: give auto or none"):
        built("idx", tmp_path / "in", tmp_path / "new", labels="folders")


@pytest.mark.parametrize("inside", [False, True], ids=["beside", "inside"])
def test_folders_of_the_files_names_are_no_idx_files(tmp_path, inside):
    """As Kaggle's MNIST unpacks: a folder of each file's name, and the file in it, beside it, or both."""
    files = contents(mnist(tmp_path / "files", gz=False))
    for name, content in files.items():
        fill(tmp_path / "in", {f"{name}/{name if inside else 'other'}": content})
        if not inside:
            fill(tmp_path / "in", {name.replace("-idx", ".idx"): content})
    built("idx", tmp_path / "in", tmp_path / "out")
    images, labels = digit_arrays(20, 40)
    np.testing.assert_array_equal(pixels(tmp_path / "out/test")[:, 0], images)
    assert [sample.label for sample in samples(tmp_path / "out/test")] == labels.tolist()


@pytest.mark.parametrize(("code", "kind"), [(0x0C, ">i4"), (0x0B, ">i2"), (0x09, "i1")])
@pytest.mark.parametrize("columns", [1, 8])
def test_labels_in_whole_numbers_of_any_size_are_read(tmp_path, code, kind, columns):
    """QMNIST's have eight columns, of which the first is the class."""
    root = mnist(tmp_path / "in", gz=False)
    for part, count in (("train", 40), ("t10k", 20)):
        (root / f"{part}-labels-idx1-ubyte").unlink()
        rows = np.full((count, columns), 77)
        rows[:, 0] = np.arange(count) % 7
        sizes = np.array(rows.shape if columns > 1 else rows.shape[:1], ">u4")
        content = bytes([0, 0, code, len(sizes)]) + sizes.tobytes() + rows.astype(kind).tobytes()
        (root / f"{part}-labels-idx2-int").write_bytes(content)
    built("idx", root, tmp_path / "out")
    assert ShardedDataset.open(tmp_path / "out/train").labels == list("0123456")
    assert [sample.label for sample in samples(tmp_path / "out/test")] == [n % 7 for n in range(20)]
    (root / "train-labels-idx2-int").write_bytes(content)
    with pytest.raises(UserError, match=r"train-labels-idx2-int has 20 labels, but train-images-idx3-ubyte has 40"):
        built("idx", root, tmp_path / "new")
    (root / "train-labels-idx2-int").write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"train-labels-idx2-int cannot be read \(its header promises"):
        built("idx", root, tmp_path / "new")
