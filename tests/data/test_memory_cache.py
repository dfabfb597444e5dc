"""A small data set is decoded once, and read as if it were decoded every time."""

import pickle
from collections import Counter

import pytest
import torch

from latentscale.data.datasets import open_dataset
from latentscale.data.loader import Loader
from latentscale.data.memory_cache import MEMORY_CACHE_BYTES, MEMORY_CACHE_BYTES_VARIABLE, MemoryCachedReader
from latentscale.data.order import Order
from latentscale.data.step_reader import StepReader
from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset

SHAPE, STREAMS, STREAM_BATCH = (1, 8, 8), 3, 50
STEPS = 25  # 1,500 digits, 150 a step: two epochs and a half


class Counting(ShardedDataset):
    """The digits, counting what is read."""

    reads: Counter[tuple[int, int]]

    def read(self, shard: int, member: int) -> tuple[bytes, str, int]:
        self.reads[shard, member] += 1
        return super().read(shard, member)


@pytest.fixture
def digits() -> Counting:
    dataset = open_dataset("digits")
    dataset.__class__ = Counting
    assert isinstance(dataset, Counting)
    dataset.reads = Counter()
    return dataset


def reader(kind: type[StepReader], dataset: ShardedDataset) -> StepReader:
    order = Order(dataset.shard_counts, STREAMS, seed=1, window=400)
    return kind(dataset, order, range(STREAMS), STREAM_BATCH, SHAPE)


def test_every_batch_is_the_same_and_every_sample_read_once(digits: Counting) -> None:
    cached, plain = reader(MemoryCachedReader, digits), reader(StepReader, open_dataset("digits"))
    for step in range(STEPS):
        for ours, theirs in zip(cached(step), plain(step), strict=True):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)
    assert set(digits.reads.values()) == {1}
    assert len(digits.reads) == digits.count


def test_a_block_is_its_steps() -> None:
    cached = reader(MemoryCachedReader, open_dataset("digits"))
    for kind in (MemoryCachedReader, StepReader):
        images, labels, _ = reader(kind, open_dataset("digits")).block(range(8, 13))  # over the end of an epoch
        for row, step in enumerate(range(8, 13)):
            assert torch.equal(images[row], cached(step)[0])
            assert torch.equal(labels[row], cached(step)[1])


def test_a_batch_given_away_is_not_what_is_remembered(digits: Counting) -> None:
    cached = reader(MemoryCachedReader, digits)
    before = cached(0)[0].clone()
    cached(0)[0].zero_()
    assert torch.equal(cached(0)[0], before)


@pytest.mark.slow
def test_it_is_sent_to_worker_processes_without_its_memory() -> None:
    dataset = open_dataset("digits")
    cached = reader(MemoryCachedReader, dataset)
    assert len(pickle.dumps(cached)) < 2 * len(pickle.dumps(reader(StepReader, dataset)))
    with Loader(
        cached, workers=1, prefetch_steps=2, start_step=0, stop_step=3, finish=lambda steps, images, labels: images
    ) as loader:
        for step, images in enumerate(loader):
            assert torch.equal(images, reader(StepReader, dataset)(step)[0])


def test_only_what_fits_is_remembered() -> None:
    assert MemoryCachedReader.fits(MEMORY_CACHE_BYTES // (3 * 64 * 64), (3, 64, 64))
    assert not MemoryCachedReader.fits(MEMORY_CACHE_BYTES // (3 * 64 * 64) + 1, (3, 64, 64))


def test_what_may_be_remembered_can_be_chosen_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for chosen, fits in (("0", False), ("191", False), ("192", True), ("", True)):
        monkeypatch.setenv(MEMORY_CACHE_BYTES_VARIABLE, chosen)
        assert MemoryCachedReader.fits(3, (1, 8, 8)) == fits
    monkeypatch.setenv(MEMORY_CACHE_BYTES_VARIABLE, "1 GB")
    with pytest.raises(UserError, match=r"^LATENTSCALE_REMEMBERED_BYTES=1 GB must be a number of bytes"):
        MemoryCachedReader.fits(3, (1, 8, 8))
