"""Reading a small data set: each sample is decoded once, and remembered."""

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from latentscale.data.step_reader import Block, StepReader
from latentscale.data.unreadable_samples import Skipped, UnreadableSample
from latentscale.decoding.sample_arrays import sample_bytes
from latentscale.errors import UserError

# per reading process; a data set whose pixels need more is decoded anew in every epoch
MEMORY_CACHE_BYTES = 128 * 2**20
# set to a number of bytes, it takes the place of that: 0 remembers nothing
MEMORY_CACHE_BYTES_VARIABLE = "LATENTSCALE_REMEMBERED_BYTES"


def memory_cache_bytes() -> int:
    """What may be remembered here; UserError where the environment says no number."""
    chosen = os.environ.get(MEMORY_CACHE_BYTES_VARIABLE, "") or str(MEMORY_CACHE_BYTES)
    if not chosen.isdecimal():
        raise UserError(f"{MEMORY_CACHE_BYTES_VARIABLE}={chosen} is no number of bytes: 0 or more, or leave it unset")
    return int(chosen)


class MemoryCachedReader(StepReader):
    """Reads what a StepReader reads, and remembers what it has decoded: for data sets whose pixels fit in memory.

    Decoding small images is Python more than anything else, and Python in the loader's thread holds up the
    training loop's: an 8×8 image costs it more than a tenth of a step.
    """

    _decoded: NDArray[Any] | None = None
    _labels: NDArray[np.int64]
    _known: NDArray[np.bool_]
    _firsts: NDArray[np.int64]

    @staticmethod
    def fits(count: int, shape: tuple[int, ...]) -> bool:
        """Whether so many samples of ``(C, H, W)``, or ``(D,)``, may be held."""
        return count * sample_bytes(shape) <= memory_cache_bytes()

    @property
    def complete(self) -> bool:
        """Whether every sample is remembered, so that nothing is read any more."""
        return self._decoded is not None and bool(self._known.all())

    def block(self, steps: range) -> Block:
        """See StepReader."""
        if self._decoded is None:  # not before it is where it reads: readers are sent to worker processes
            counts = self._dataset.shard_counts
            self._firsts = np.cumsum(counts) - counts
            self._labels = np.empty(self._dataset.count, dtype=np.int64)
            self._known = np.zeros(self._dataset.count, dtype=np.bool_)
            self._decoded = self._arrays.empty(self._dataset.count)
        shards, members = self._places(steps)
        chosen = self._firsts[shards] + members
        skipped: dict[int, list[Skipped]] = {}
        for i, row in zip(*np.nonzero(~self._known[chosen]), strict=True):
            shard, member = int(shards[i, row]), int(members[i, row])
            try:
                self._decode_once(shard, member)
            except UnreadableSample:
                chosen[i, row] = self._replacements.read(
                    shard,
                    member,
                    *self._stream_and_position(steps[i], row),
                    self._decode_once,
                    skipped.setdefault(steps[i], []),
                )
        images = self._decoded[chosen]
        if self._preprocessing.horizontal_flip:
            self._arrays.mirror(images, self._flips(steps))
        return Block(torch.from_numpy(self._arrays.samples(images)), torch.from_numpy(self._labels[chosen]), skipped)

    def _decode_once(self, shard: int, member: int) -> int:
        """Decode a sample where that is not done yet; its number among all."""
        assert self._decoded is not None
        sample = int(self._firsts[shard]) + member
        if not self._known[sample]:
            self._labels[sample] = self._read_into(shard, member, self._decoded[sample])
            self._known[sample] = True
        return sample
