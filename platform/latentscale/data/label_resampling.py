"""Resample the reals to given label probabilities: a pure function of (seed, stream, position).

Position p of a stream draws a label from the given probabilities, then one of the samples with that label, uniformly
and with replacement. Among as many draws as the dataset has samples, a sample may occur several times or never.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from latentscale.bounded_cache import BoundedCache
from latentscale.data.order import Order
from latentscale.errors import UserError
from latentscale.latents.draws import Purpose, block_uniforms

# number of positions of a stream that are drawn together
_BLOCK = 256
_MEMBER_CACHE_BYTES = 256 * 2**20


class LabelledData(Protocol):
    """The part of a dataset that resampling needs."""

    name: str
    labels: list[str]
    shard_counts: NDArray[np.int64]

    def shard_labels(self, shard: int) -> NDArray[np.int64]:
        """The stored label of each member; −1 if it has none."""


class _MembersByLabel:
    """A shard's members sorted by label, and the index where each label begins."""

    def __init__(self, labels: NDArray[np.int64], count: int) -> None:
        self.members = np.argsort(labels, kind="stable")
        # members without a label come first
        self.starts = np.searchsorted(labels[self.members], np.arange(count + 1))

    def nbytes(self) -> int:
        return self.members.nbytes + self.starts.nbytes


class ResampledOrder(Order):
    """An order that draws samples by label instead of visiting each one once per epoch.

    Args:
        data: labelled samples; the constructor reads the labels of every shard.
        probabilities: probability of each label (of each combination, if samples have several), ``[labels]``.
        streams: S, the run's number of streams.
        seed: seed of the run.

    Raises:
        UserError: ``data.label_probabilities`` is invalid: the data have no labels or another number of labels, the
            sum is not 1, or no sample has a label of positive probability.
    """

    def __init__(self, data: LabelledData, probabilities: Sequence[float], streams: int, seed: int) -> None:
        super().__init__(data.shard_counts, streams, seed, window=1)
        labels = len(data.labels)
        key = f"data.label_probabilities={list(probabilities)}"
        if not labels:
            raise UserError(f"{key}: {data.name} has no labels: leave the key empty, or use labelled data")
        if len(probabilities) != labels or abs(sum(probabilities) - 1) > 1e-3:
            raise UserError(f"{key} must be the {labels} probabilities of the labels of {data.name}, summing to 1")
        self._data, self._labels = data, labels
        counts = np.array([self._count(shard) for shard in range(len(data.shard_counts))])
        self._until = counts.cumsum(axis=0)
        self._wanted = np.asarray(probabilities, dtype=np.float64)
        if missing := np.flatnonzero((self._wanted > 0) & (self._until[-1] == 0)).tolist():
            raise UserError(
                f"{key}: no sample of {data.name} has the label {data.labels[missing[0]]}: set its probability to 0"
            )
        self._ends = np.cumsum(self._wanted / self._wanted.sum())
        self._last = int(np.flatnonzero(self._wanted)[-1])
        self._members: BoundedCache[int, _MembersByLabel] = BoundedCache(_MEMBER_CACHE_BYTES, _MembersByLabel.nbytes)
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
            sorted_members = self._members_of(shard)
            before = until[shard - 1] if shard else 0
            shards[place] = shard
            members[place] = sorted_members.members[sorted_members.starts[label[place]] + rank[place] - before]
        return shards, members

    def shards_ahead(self, stream: int, position: int, images: int) -> list[int]:
        """See `Order.shards_ahead`: the shards that those positions draw from; soon all of them."""
        shards, _ = self.locate_run(stream, position, images)
        return list(dict.fromkeys(shards.tolist()))

    def _count(self, shard: int) -> NDArray[np.int64]:
        labels = self._data.shard_labels(shard)
        return np.bincount(labels[labels >= 0], minlength=self._labels)

    def _members_of(self, shard: int) -> _MembersByLabel:
        return self._members.get(shard, lambda: _MembersByLabel(self._data.shard_labels(shard), self._labels))

    def _drawn(self, stream: int, block: int) -> NDArray[np.float64]:
        return self._draws.get((stream, block), lambda: self._draw(stream, block))

    def _draw(self, stream: int, block: int) -> NDArray[np.float64]:
        """``[positions, 2]``: the draw for the label, and the draw for the sample among those with that label."""
        drawn = block_uniforms(
            self._seed, Purpose.RESAMPLING, range(block, block + 1), range(stream, stream + 1), 2 * _BLOCK
        )
        return drawn.reshape(_BLOCK, 2)
