"""Read a small dataset: decode each sample once and keep it in memory."""

import os
import re
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from latentscale.data.step_reader import Block, StepReader
from latentscale.data.unreadable_samples import Skipped, UnreadableSample
from latentscale.decoding.sample_arrays import sample_bytes
from latentscale.errors import UserError
from latentscale.wording import shown

# per reading process; a larger dataset is decoded again in every epoch
MEMORY_CACHE_BYTES = 128 * 2**20
# environment variable that replaces this limit; 0 turns the cache off
MEMORY_CACHE_BYTES_VARIABLE = "LATENTSCALE_REMEMBERED_BYTES"


def memory_cache_bytes() -> int:
    """The size limit of the cache.

    Raises:
        UserError: the environment variable is not a number.
    """
    chosen = os.environ.get(MEMORY_CACHE_BYTES_VARIABLE, "") or str(MEMORY_CACHE_BYTES)
    if not re.fullmatch("[0-9]{1,18}", chosen):
        raise UserError(
            f"{MEMORY_CACHE_BYTES_VARIABLE}={shown(chosen)} must be a number of bytes, 0 or more: correct or unset it"
        )
    return int(chosen)


class MemoryCachedReader(StepReader):
    """Reads what a StepReader reads, and caches decoded samples; for datasets whose pixels fit in memory.

    Decoding a small image takes mostly Python time, and Python in the loader's thread blocks the training loop's:
    each 8×8 image would cost it more than a tenth of a step.
    """

    _decoded: NDArray[Any] | None = None
    _labels: NDArray[np.int64]
    _is_cached: NDArray[np.bool_]
    _firsts: NDArray[np.int64]

    @staticmethod
    def fits(count: int, shape: tuple[int, ...]) -> bool:
        """Whether ``count`` samples of ``(C, H, W)`` or ``(D,)`` fit into the cache."""
        return count * sample_bytes(shape) <= memory_cache_bytes()

    @property
    def complete(self) -> bool:
        """Whether every sample is cached, so that nothing is read any more."""
        return self._decoded is not None and bool(self._is_cached.all())

    def block(self, steps: range) -> Block:
        """See StepReader."""
        if self._decoded is None:  # allocated at the first read: readers are pickled to worker processes before that
            counts = self._dataset.shard_counts
            self._firsts = np.cumsum(counts) - counts
            self._labels = np.empty(self._dataset.count, dtype=np.int64)
            self._is_cached = np.zeros(self._dataset.count, dtype=np.bool_)
            self._decoded = self._arrays.empty(self._dataset.count)
        shards, members = self._places(steps)
        chosen = self._firsts[shards] + members
        skipped: dict[int, list[Skipped]] = {}
        for i, row in zip(*np.nonzero(~self._is_cached[chosen]), strict=True):
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
        """Decode a sample unless it is cached; return its index in the dataset."""
        assert self._decoded is not None
        sample = int(self._firsts[shard]) + member
        if not self._is_cached[sample]:
            self._labels[sample] = self._read_into(shard, member, self._decoded[sample])
            self._is_cached[sample] = True
        return sample
