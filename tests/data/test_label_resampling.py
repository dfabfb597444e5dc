"""Resampled reals: their labels' probabilities, each sample of a label alike, and nothing but the position decides."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from numbered_images import SHAPE, numbered_png
from numpy.typing import NDArray

from latentscale.data.datasets import open_dataset
from latentscale.data.label_resampling import ResampledOrder
from latentscale.data.order import Order
from latentscale.errors import UserError
from latentscale.shards.dataset_writer import write_shards
from latentscale.shards.sample import Sample
from latentscale.shards.sharded_dataset import ShardedDataset


class Labelled:
    """Three shards; the last sample has no label, and label 3 has no sample."""

    name = "toys"
    labels = ("a", "b", "c", "d")
    stored = (np.array([0, 1, 2, 1]), np.array([2]), np.array([1, 0, 1, 2, -1]))
    shard_counts = np.array([4, 1, 5])

    def shard_labels(self, shard: int) -> NDArray[np.int64]:
        return self.stored[shard]


PROBABILITIES = [0.5, 0.2, 0.3, 0.0]
WHERE = {0: {(0, 0), (2, 1)}, 1: {(0, 1), (0, 3), (2, 0), (2, 2)}, 2: {(0, 2), (1, 0), (2, 3)}}


def drawn(order: ResampledOrder, stream: int, count: int) -> list[tuple[int, int]]:
    return [(int(s), int(m)) for s, m in zip(*order.locate_run(stream, 0, count), strict=True)]


def test_labels_have_their_probabilities_and_samples_of_a_label_are_alike() -> None:
    count = 20_000
    places = drawn(ResampledOrder(Labelled(), PROBABILITIES, 2, seed=3), 1, count)
    for label, members in WHERE.items():
        expected = count * PROBABILITIES[label] / len(members)
        counts = np.array([places.count(member) for member in members])
        # each is binomial: a sum of squared standardised deviations, 99.9 % of which lie below 18.5 for 4 of them
        assert ((counts - expected) ** 2 / expected).sum() < 18.5
    assert set(places) == set.union(*WHERE.values())


def test_a_position_is_the_same_however_it_is_asked_for() -> None:
    order, again = (ResampledOrder(Labelled(), PROBABILITIES, 4, seed=3) for _ in range(2))
    whole = [drawn(order, stream, 700) for stream in range(4)]
    again = pickle.loads(pickle.dumps(again))
    shards, members = again.locate_runs(range(1, 3), 250, 300)  # across a block's end
    for row, stream in enumerate((1, 2)):
        assert list(zip(shards[row].tolist(), members[row].tolist(), strict=True)) == whole[stream][250:550]
    assert order.locate(2, 613) == whole[2][613]
    assert whole[0] != whole[1]
    assert drawn(ResampledOrder(Labelled(), PROBABILITIES, 4, seed=4), 0, 700) != whole[0]


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        ([0.5, 0.5], "must be the 4 probabilities"),
        ([0.5, 0.2, 0.2, 0.0], "summing to 1"),
        ([0.5, 0.2, 0.2, 0.1], "no sample of toys has the label d"),
    ],
)
def test_what_cannot_be_resampled_is_refused(probabilities: list[float], message: str) -> None:
    with pytest.raises(UserError, match=rf"data\.label_probabilities=.*{message}"):
        ResampledOrder(Labelled(), probabilities, 2, seed=0)


def write(folder: Path, count: int, labelled: bool) -> ShardedDataset:
    """Numbered images, two a shard; every third has no label."""
    samples = (
        Sample(numbered_png(number), "png", number % 3 - 1 if labelled and number % 3 else None)
        for number in range(count)
    )
    labels = ["x", "y"] if labelled else []
    write_shards(samples, folder, "few", SHAPE, labels, "none", shard_bytes=4 * 1024 - 1)
    return ShardedDataset.open(folder)


def test_data_without_labels_cannot_be_resampled(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.label_probabilities=\[1.0\]: few has no labels"):
        ResampledOrder(write(tmp_path / "plain", 5, labelled=False), [1.0], 1, seed=0)


@pytest.mark.slow
def test_clusters_are_resampled_to_the_published_distribution() -> None:
    data = open_dataset("clusters")
    shards, members = ResampledOrder(data, [0.4, 0.3, 0.2, 0.1], 1, seed=0).locate_run(0, 0, 20_000)
    classes = np.array([data.shard_labels(int(s))[m] for s, m in zip(shards, members, strict=True)])
    shares = np.bincount(classes) / len(classes)
    # four standard deviations of a share of 20,000
    assert np.abs(shares - [0.4, 0.3, 0.2, 0.1]).max() < 4 * np.sqrt(0.25 / 20_000)
    assert isinstance(ResampledOrder(data, [0.4, 0.3, 0.2, 0.1], 1, seed=0), Order)


def test_shards_are_resampled_by_their_indexes(tmp_path: Path) -> None:
    data = write(tmp_path / "labelled", 7, labelled=True)
    assert len(data.shard_counts) > 2
    order = ResampledOrder(data, [0.0, 1.0], 2, seed=1)
    found = {data.read(shard, member) for shard, member in drawn(order, 0, 60)}
    # labels are none, x, y, none, x, y, none: numbers 2 and 5 are y
    assert found == {(numbered_png(number), "png", 1) for number in (2, 5)}
