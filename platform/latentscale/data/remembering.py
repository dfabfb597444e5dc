"""Reading a small data set: each sample is decoded once, and remembered."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentscale.data.decoding import decode
from latentscale.data.loading import StepReader

# per reading process; a data set whose pixels need more is decoded anew in every epoch
REMEMBERED_BYTES = 128 * 2**20


class RememberingReader(StepReader):
    """Reads what a StepReader reads, and remembers what it has decoded: for data sets whose pixels fit in memory.

    Decoding small images is Python more than anything else, and Python in the loader's thread holds up the
    training loop's: an 8×8 image costs it more than a tenth of a step.
    """

    _pixels: NDArray[np.uint8] | None = None
    _labels: NDArray[np.int64]
    _known: NDArray[np.bool_]
    _firsts: NDArray[np.int64]

    @staticmethod
    def fits(count: int, shape: tuple[int, int, int]) -> bool:
        """Whether so many samples of ``(C, H, W)`` may be held."""
        return count * math.prod(shape) <= REMEMBERED_BYTES

    def block(self, steps: range) -> tuple[Tensor, Tensor]:
        """See StepReader."""
        if self._pixels is None:  # not before it is where it reads: readers are sent to worker processes
            counts = self._dataset.shard_counts
            self._firsts = np.cumsum(counts) - counts
            self._labels = np.empty(self._dataset.count, dtype=np.int64)
            self._known = np.zeros(self._dataset.count, dtype=np.bool_)
            self._pixels = np.empty((self._dataset.count, *self._shape), dtype=np.uint8)
        shards, members = self._places(steps)
        chosen = self._firsts[shards] + members
        for place in zip(*np.nonzero(~self._known[chosen]), strict=True):
            shard, member, sample = int(shards[place]), int(members[place]), chosen[place]
            data, _, self._labels[sample] = self._dataset.read(shard, member)
            self._pixels[sample] = decode(data, self._shape, self._dataset.where(shard, member))
            self._known[sample] = True
        return torch.from_numpy(self._pixels[chosen]), torch.from_numpy(self._labels[chosen])
