"""Datasets by name, and the bundled digits, written by several processes at once."""

import multiprocessing
from multiprocessing.synchronize import Barrier

import numpy as np
import pytest
from sklearn.datasets import load_digits

from latentscale.data.datasets import available_splits, open_dataset
from latentscale.data.first_use import bundled_folder
from latentscale.decoding.sample_arrays import decode
from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage.user_cache import cache_folder


def write_digits(together: Barrier) -> None:
    together.wait(30)
    bundled_folder("digits", "train")
    bundled_folder("digits", "test")


@pytest.fixture(scope="module")
def digits_cache(tmp_path_factory):
    """A cache folder into which three processes wrote the digits at the same time."""
    folder = tmp_path_factory.mktemp("cache")
    # Forked, so that they have scikit-learn imported and meet each other while writing.
    context = multiprocessing.get_context("fork")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTSCALE_CACHE", str(folder))
        together = context.Barrier(3)
        writers = [context.Process(target=write_digits, args=(together,)) for _ in range(3)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(60)
            assert writer.exitcode == 0
        yield folder


def test_the_digits_are_scikit_learns(digits_cache):
    data = load_digits()
    written = []
    for split, count in (("train", 1500), ("test", 297)):
        dataset = open_dataset("digits", split=split)
        dataset.verify()
        assert (dataset.count, dataset.shape) == (count, (1, 8, 8))
        assert dataset.labels == list("0123456789")
        assert "CC BY 4.0" in dataset.licence
        written += [dataset.read(shard, m) for shard, n in enumerate(dataset.shard_counts) for m in range(n)]
    pixels = np.stack([decode(image, (1, 8, 8), "x")[0] for image, _, _ in written])
    # 0 … 16 become 0 … 255: within half a step of v·255/16, and so exactly invertible.
    assert np.abs(pixels - data.images * 255 / 16).max() <= 0.5
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert [label for _, _, label in written] == data.target.tolist()
    assert open_dataset("digits").shard_counts.tolist() == [300] * 5


def test_processes_at_once_leave_one_complete_folder(digits_cache):
    assert sorted(path.name for path in (digits_cache / "digits-v1").iterdir()) == ["test", "train"]


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("LATENTSCALE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "latentscale"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "latentscale"


def test_shards_are_found_whole_or_by_split(numbered, tmp_path):
    folder = numbered(10, 4).path
    assert open_dataset("shards", folder).count == 10
    assert available_splits("shards", folder) == ("train",)
    (tmp_path / "train").symlink_to(folder)
    (tmp_path / "test").symlink_to(numbered(11, 4).path)
    assert open_dataset("shards", str(tmp_path), "test").count == 11
    assert open_dataset("shards", str(tmp_path)).fingerprint == ShardedDataset.open(folder).fingerprint
    assert available_splits("shards", tmp_path) == available_splits("digits") == ("train", "test")
    with pytest.raises(UserError, match="has no test split"):
        open_dataset("shards", folder, "test")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ffhq",), "data.name=ffhq does not exist: use one of digits, clusters, shards"),
        (("digits", "x"), "data.path=x is not used by data.name=digits"),
        (("shards",), "data.path is missing"),
        (("shards", "nowhere"), "data.path=nowhere is not a folder"),
        (
            ("shards", "."),
            "neither dataset.json nor train/dataset.json: .* with .*latentscale shards build SOURCE PATH --out .$",
        ),
        (("digits", None, "validation"), "split validation does not exist: use one of train, test"),
    ],
)
def test_what_cannot_be_opened_is_named(monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        open_dataset(*arguments)
