"""Replacements for unreadable samples: a pure function of (seed, stream, position)."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from latentscale.errors import UserError
from latentscale.latents.draws import Purpose, uniforms

T = TypeVar("T")

# Even if half of the data is damaged, 64 failures in a row have probability 2⁻⁶⁴.
MAX_ATTEMPTS = 64


class Skipped(NamedTuple):
    """A sample that could not be read.

    Attributes:
        shard, member: index of the shard, and of the sample within it.
        reason: one line that names both and the damage.
    """

    shard: int
    member: int
    reason: str


class UnreadableSample(Exception):
    """A sample is damaged and may be replaced by another; the message is one line that names it."""


class ReplacementSampler:
    """Reads a sample, or the first readable one of the replacements drawn for it.

    Attempt a at a position draws uniformly from all samples by (seed, stream, position, a), whatever the processes,
    the workers and the samples read before. A pickled copy starts without the record of unreadable samples.

    Args:
        shard_counts: number of samples in each shard, ``[shards]``.
        seed: seed of the run.
    """

    def __init__(self, shard_counts: NDArray[np.int64], seed: int) -> None:
        self._ends = np.cumsum(shard_counts)
        self._seed = seed
        self._unreadable: dict[tuple[int, int], str] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return ReplacementSampler, (np.diff(self._ends, prepend=0), self._seed)

    def candidate(self, stream: int, position: int, attempt: int) -> tuple[int, int]:
        """The (shard, member) of the ``attempt``-th replacement, from 1, at ``position`` of ``stream``."""
        drawn = uniforms(self._seed, Purpose.SUBSTITUTE_SAMPLE, position, stream, attempt)[-1]
        sample = int(drawn * self._ends[-1])
        shard = int(np.searchsorted(self._ends, sample, side="right"))
        return shard, sample - int(self._ends[shard - 1] if shard else 0)

    def read(
        self, shard: int, member: int, stream: int, position: int, read: Callable[[int, int], T], skipped: list[Skipped]
    ) -> T:
        """Call ``read`` with (shard, member), then with replacements until it does not raise UnreadableSample.

        Args:
            stream, position: the sample's place in the order.
            skipped: every unreadable sample is appended.

        Raises:
            UserError: too many replacements in a row are unreadable.
        """
        for attempt in range(MAX_ATTEMPTS + 1):
            if attempt:
                shard, member = self.candidate(stream, position, attempt)
            reason = self._unreadable.get((shard, member))
            if reason is None:
                try:
                    return read(shard, member)
                except UnreadableSample as error:
                    reason = self._unreadable[shard, member] = str(error)
            skipped.append(Skipped(shard, member, reason))
        raise UserError(
            f"{MAX_ATTEMPTS} samples drawn to replace an unreadable one cannot be read either; the last one:"
            f" {skipped[-1].reason}"
        )
