"""What stands in for a sample that cannot be read: a pure function of where it was to stand."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from latentscale.errors import UserError
from latentscale.latents.draws import Purpose, uniforms

T = TypeVar("T")

# Half of the data may be damaged, and still this never happens by chance: 2⁻⁶⁴.
MOST_ATTEMPTS = 64


class Skipped(NamedTuple):
    """A sample that could not be read.

    Attributes:
        shard, member: which.
        reason: one line that names both and says what is wrong.
    """

    shard: int
    member: int
    reason: str


class UnreadableSample(Exception):
    """A sample is damaged and another may stand in for it; carries the one line that says so."""


class ReplacementSampler:
    """Reads a sample, or the first readable one of those drawn in its place.

    Attempt a at a position draws uniformly from all samples by (seed, stream, position, a): neither processes, workers
    nor what was read before have a say. Pickled, it forgets what it found unreadable.

    Args:
        shard_counts: samples of each shard, ``[shards]``.
        seed: of the run.
    """

    def __init__(self, shard_counts: NDArray[np.int64], seed: int) -> None:
        self._ends = np.cumsum(shard_counts)
        self._seed = seed
        self._unreadable: dict[tuple[int, int], str] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return ReplacementSampler, (np.diff(self._ends, prepend=0), self._seed)

    def candidate(self, stream: int, position: int, attempt: int) -> tuple[int, int]:
        """The (shard, member) tried in the ``attempt``-th place, from 1, at ``position`` of ``stream``."""
        drawn = uniforms(self._seed, Purpose.SUBSTITUTE_SAMPLE, position, stream, attempt)[-1]
        sample = int(drawn * self._ends[-1])
        shard = int(np.searchsorted(self._ends, sample, side="right"))
        return shard, sample - int(self._ends[shard - 1] if shard else 0)

    def read(
        self, shard: int, member: int, stream: int, position: int, read: Callable[[int, int], T], skipped: list[Skipped]
    ) -> T:
        """What ``read(shard, member)`` returns, or of the first of its substitutes that does not raise Unreadable.

        Args:
            stream, position: where the sample was to stand.
            skipped: is given every sample that could not be read on the way.

        Raises:
            UserError: too many in a row cannot be read.
        """
        for attempt in range(MOST_ATTEMPTS + 1):
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
            f"{MOST_ATTEMPTS} samples drawn one after the other in place of an unreadable one cannot be read either:"
            f" {skipped[-1].reason}"
        )
