"""The real files beside the project, where they are: they build, verify and hold what is known of them."""

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from layouts import SHARED, built, origins, pixels, samples
from PIL import Image

from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.shards.splitting import folds, split_dataset
from latentscale.shards.verifying import verify
from latentscale.sources.registry import list_source
from latentscale.sources.source_options import SourceOptions
from skipping import NEEDS_DATA


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.is_dir():
        pytest.skip(f"{NEEDS_DATA}: {path} is absent; set LATENTSCALE_SHARED_DATA to a folder with {name}/")
    return path


def intact(folder: Path) -> None:
    assert verify(folder, 2).broken == []


@pytest.mark.slow
def test_afhq(tmp_path):
    source = shared("afhq")
    assert built("afhq", source, tmp_path / "full", workers=2).counts == {"train": 36, "test": 9}
    intact(tmp_path / "full")
    assert ShardedDataset.open(tmp_path / "full/train").label_counts().tolist() == [16, 9, 11]
    for sample in samples(tmp_path / "full/train"):
        assert sample.image == (source / sample.origin["name"]).read_bytes()
    built("afhq", source, tmp_path / "small", resolution=64, workers=2)
    name = origins(tmp_path / "small/test")[0]
    expected = np.asarray(Image.open(source / name).resize((64, 64), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(pixels(tmp_path / "small/test")[0], expected.transpose(2, 0, 1))


@pytest.mark.slow
def test_ffhq(tmp_path):
    source = shared("ffhq")
    result = built("ffhq", source, tmp_path / "out")
    assert result.counts == {"train": 10}
    intact(tmp_path / "out")
    assert [sample.image for sample in samples(tmp_path / "out/train")] == [
        path.read_bytes() for path in sorted(source.rglob("*.png"))
    ]
    built("imagenet-patches", source, tmp_path / "patches", patches="grid", labels="none")
    assert ShardedDataset.open(tmp_path / "patches/train").count == 10 * 64


def idx(path: Path) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes())[16:], np.uint8).reshape(-1, 28, 28)


def check_digits(folder: Path, source: Path) -> None:
    """Test images are the source's, framed in black."""
    test = ShardedDataset.open(folder)
    assert (test.shape, test.label_counts().sum()) == ((1, 32, 32), 10_000)
    expected = idx(source / "t10k-images-idx3-ubyte.gz")
    for number in (0, 1234, 9999):
        image, _, _ = test.read(0, number)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image)))[2:30, 2:30], expected[number])
    intact(folder)


def only_test_images(source: Path, folder: Path) -> Path:
    """The test images alone."""
    folder.mkdir()
    for path in source.glob("t10k-*"):
        (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.slow
def test_mnist(tmp_path):
    source = shared("mnist")
    options = {"pad": 32, "png_compression": 1, "workers": 2, "origins": False}
    result = built("idx", only_test_images(source, tmp_path / "mnist"), tmp_path / "out", **options)
    assert result.counts == {"test": 10_000}
    check_digits(tmp_path / "out/test", source)
    # what a build takes of the other 60,000, which it would take a minute over
    train = list_source("idx", source, SourceOptions()).splits["train"]
    assert np.bincount([item.label for item in train]).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip


@pytest.mark.slow
def test_fashion_mnist(tmp_path):
    source = shared("fashion-mnist")
    result = built(
        "idx", only_test_images(source, tmp_path / "fashion"), tmp_path / "out", pad=32, png_compression=1, workers=2
    )
    assert result.counts == {"test": 10_000}
    check_digits(tmp_path / "out/test", source)
    assert ShardedDataset.open(tmp_path / "out/test").label_counts().tolist() == [1000] * 10
    counts = split_dataset(tmp_path / "out/test", tmp_path / "fold", folds(7, 6, 0, True), 2**25)
    assert counts == {"train": 8572, "test": 1428}


@pytest.mark.slow
def test_mnist_c(tmp_path):
    source, originals = shared("mnist-c"), shared("mnist")
    corruptions = ("fog", "stripe")
    built("mnist-c", source, tmp_path / "out", originals=originals, corruptions=corruptions, pad=32)
    test = ShardedDataset.open(tmp_path / "out/test")
    assert (test.count, test.label_sizes) == (3 * 2000, (3, 10))
    found = pixels(tmp_path / "out/test")[:, 0, 2:30, 2:30].reshape(3, 2000, 28, 28)
    np.testing.assert_array_equal(found[0], idx(originals / "t10k-images-idx3-ubyte.gz")[:2000])
    np.testing.assert_array_equal(found[2], np.load(source / "stripe/test_images.npy")[..., 0])
    labels = np.frombuffer(gzip.decompress((originals / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)[:2000]
    assert [sample.label % 10 for sample in samples(tmp_path / "out/test")] == labels.tolist() * 3
    intact(tmp_path / "out")
