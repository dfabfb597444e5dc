"""Shards in an S3 bucket, of a real server of the protocol (moto's), through the real client."""

import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
from buckets import s3_bucket
from cache_files import cached_sizes
from numbered_images import LABELS, SHAPE, numbered_samples
from test_prefetching import step_reader
from test_streaming import read
from test_streaming import reader as streaming_reader

from latentscale.data.datasets import open_dataset, open_held_out
from latentscale.data.loader import Loader
from latentscale.errors import UserError
from latentscale.shards.dataset_writer import write_shards
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage.dataset_files import StorageOptions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """The local folder and the URL of 200 samples in train/, 16 in test/."""
    folder: Path = tmp_path_factory.mktemp("s3")
    write_shards(numbered_samples(200), folder / "train", "n", SHAPE, LABELS, "CC0", 8 * 2048)
    write_shards(numbered_samples(16), folder / "test", "n", SHAPE, LABELS, "CC0", 8 * 2048)
    patch = pytest.MonkeyPatch()
    with s3_bucket(folder) as (url, environment):
        # as a user does, by the environment
        for name, value in environment.items():
            patch.setenv(name, value)
        yield folder, url
        patch.undo()


def options(tmp_path: Path, shards: int = 1000, retry_seconds: float = 10.0) -> StorageOptions:
    return StorageOptions(tmp_path / "cache", shards * 16384 + 100_000, retry_seconds, stall_seconds=5.0)


def test_splits_and_samples_are_those_of_the_local_copy(bucket, tmp_path):
    folder, url = bucket
    remote = open_dataset("shards", url, "train", options(tmp_path))
    local = open_dataset("shards", folder, "train")
    held_out = open_held_out(remote, "shards", url, options(tmp_path))
    assert (remote.fingerprint, held_out.count) == (local.fingerprint, 16)
    places = [(0, 3), (24, 7), (11, 0)]
    assert list(remote.read_sparse(places)) == [local.read(*place) for place in places]
    tar_bytes = int(local.shard_sizes_bytes[0])
    assert all(size < tar_bytes for size in cached_sizes(tmp_path / "cache"))
    assert [remote.read(*place) for place in places] == [local.read(*place) for place in places]


@pytest.fixture
def fork_server_of_its_own() -> Iterator[None]:
    """Workers are forked from a server that knows the environment of its start: not yet the bucket's credentials."""
    forkserver._forkserver._stop()
    yield
    forkserver._forkserver._stop()


@pytest.mark.usefixtures("fork_server_of_its_own")
@pytest.mark.parametrize("workers", [0, 2])
def test_the_loaders_output_is_that_of_local_files_with_a_cache_smaller_than_the_data(bucket, tmp_path, workers):
    folder, url = bucket
    local = ShardedDataset.open(folder / "train")
    remote = ShardedDataset.open(f"{url}/train", options(tmp_path, shards=16))
    loaders = [
        Loader(
            step_reader(dataset),
            workers=workers,
            prefetch_steps=2,
            start_step=0,
            stop_step=40,
            finish=lambda steps, images, labels: list(zip(images.clone(), labels.clone(), strict=True)),
        )
        for dataset in (local, remote)
    ]
    with loaders[0], loaders[1]:
        for expected, found in zip(*loaders, strict=True):
            assert torch.equal(found[0], expected[0])
            assert torch.equal(found[1], expected[1])
    kept_bytes = sum(cached_sizes(tmp_path / "cache"))
    assert kept_bytes <= options(tmp_path, shards=16).cache_bytes < int(local.shard_sizes_bytes.sum())


def test_streaming_reads_the_bucket_and_keeps_nothing(bucket, tmp_path):
    folder, url = bucket
    remote = ShardedDataset.open(f"{url}/train", options(tmp_path))
    assert read(streaming_reader(remote)) == read(streaming_reader(ShardedDataset.open(folder / "train")))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("place", ["of data", "of bucket"])
def test_what_is_not_there_is_named_at_once(bucket, tmp_path, place):
    url = bucket[1].replace("/data", "/nothing") if place == "of data" else "s3://no-such-bucket/data"
    began = time.monotonic()
    with pytest.raises(UserError, match=rf"data\.path={url} holds no train split") as refused:
        open_dataset("shards", url, "train", options(tmp_path))
    assert time.monotonic() - began < 8
    assert "\n" not in str(refused.value)
