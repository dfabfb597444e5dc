"""Reals resampled to given probabilities of their labels: a pure function of (seed, stream, position).

Position p of a stream draws a label from the given probabilities and then any sample of that label, each equally
likely: with replacement. A sample may so come several times, or not at all, among as many as the data set has.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from latentscale.bounded_cache import BoundedCache
from latentscale.data.order import Order
from latentscale.errors import UserError
from latentscale.latents.draws import Purpose, block_uniforms

# positions of a stream whose draws are made in one go
_BLOCK = 256
_MEMBERS_BYTES = 256 * 2**20


class LabelledData(Protocol):
    """What resampling must know of a data set."""

    name: str
    labels: list[str]
    shard_counts: NDArray[np.int64]

    def shard_labels(self, shard: int) -> NDArray[np.int64]:
        """The stored label of each member, −1 without one."""


class _Members:
    """A shard's members sorted by label, and where each label's begin."""

    def __init__(self, labels: NDArray[np.int64], count: int) -> None:
        self.members = np.argsort(labels, kind="stable")
        # those without a label stand first
        self.starts = np.searchsorted(labels[self.members], np.arange(count + 1))

    def nbytes(self) -> int:
        return self.members.nbytes + self.starts.nbytes


class ResampledOrder(Order):
    """An order that draws instead of walking.

    Args:
        data: samples with labels; the labels of every shard are read once here.
        probabilities: of each label (of each combination, where a sample has several), ``[labels]``.
        streams: S, the run's number of streams.
        seed: of the run.

    Raises:
        UserError: naming ``data.label_probabilities``: data without labels, another number of them, a sum that is not
            1, or a label of positive probability that no sample has.
    """

    def __init__(self, data: LabelledData, probabilities: Sequence[float], streams: int, seed: int) -> None:
        super().__init__(data.shard_counts, streams, seed, window=1)
        labels = len(data.labels)
        key = f"data.label_probabilities={list(probabilities)}"
        if not labels:
            raise UserError(f"{key}: {data.name} has no labels: leave it empty, or use labelled data")
        if len(probabilities) != labels or abs(sum(probabilities) - 1) > 1e-3:
            raise UserError(f"{key} must be the {labels} probabilities of the labels of {data.name}, summing to 1")
        self._data, self._labels = data, labels
        counts = np.array([self._count(shard) for shard in range(len(data.shard_counts))])
        self._until = counts.cumsum(axis=0)
        self._wanted = np.asarray(probabilities, dtype=np.float64)
        if missing := np.flatnonzero((self._wanted > 0) & (self._until[-1] == 0)).tolist():
            raise UserError(f"{key}: no sample of {data.name} has the label {data.labels[missing[0]]}: give it 0")
        self._ends = np.cumsum(self._wanted / self._wanted.sum())
        self._last = int(np.flatnonzero(self._wanted)[-1])
        self._members: BoundedCache[int, _Members] = BoundedCache(_MEMBERS_BYTES, _Members.nbytes)
        self._draws: BoundedCache[tuple[int, int], NDArray[np.float64]] = BoundedCache(2 * streams + 2)

    def locate_runs(self, streams: range, start: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See `Order.locate_runs`."""
        positions = np.arange(start, start + count)
        blocks, within = np.divmod(positions, _BLOCK)
        drawn = np.empty((len(streams), count, 2))
        for row, stream in enumerate(streams):
            for block in range(int(blocks[0]), int(blocks[-1]) + 1) if count else ():
                here = blocks == block
                drawn[row, here] = self._drawn(stream, block)[within[here]]
        label = np.minimum(np.searchsorted(self._ends, drawn[..., 0], side="right"), self._last)
        rank = (drawn[..., 1] * self._until[-1, label]).astype(np.int64)
        shards, members = np.empty_like(label), np.empty_like(label)
        for place in np.ndindex(*label.shape):
            until = self._until[:, label[place]]
            shard = int(np.searchsorted(until, rank[place], side="right"))
            sorted_members = self._of(shard)
            before = until[shard - 1] if shard else 0
            shards[place] = shard
            members[place] = sorted_members.members[sorted_members.starts[label[place]] + rank[place] - before]
        return shards, members

    def shards_ahead(self, stream: int, position: int, images: int) -> list[int]:
        """See `Order.shards_ahead`: the shards that those positions draw from, which is soon all of them."""
        shards, _ = self.locate_run(stream, position, images)
        return list(dict.fromkeys(shards.tolist()))

    def _count(self, shard: int) -> NDArray[np.int64]:
        labels = self._data.shard_labels(shard)
        return np.bincount(labels[labels >= 0], minlength=self._labels)

    def _of(self, shard: int) -> _Members:
        return self._members.get(shard, lambda: _Members(self._data.shard_labels(shard), self._labels))

    def _drawn(self, stream: int, block: int) -> NDArray[np.float64]:
        return self._draws.get((stream, block), lambda: self._draw(stream, block))

    def _draw(self, stream: int, block: int) -> NDArray[np.float64]:
        """``[positions, 2]``: for the label, and for the sample among those that have it."""
        drawn = block_uniforms(
            self._seed, Purpose.RESAMPLING, range(block, block + 1), range(stream, stream + 1), 2 * _BLOCK
        )
        return drawn.reshape(_BLOCK, 2)
