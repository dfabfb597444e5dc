"""Samples that a run could not read: each named and counted once, whichever process met it, and however often."""

from collections.abc import Callable, Iterable

from latentscale.data.unreadable_samples import Skipped
from latentscale.distributed.agreement import all_gather
from latentscale.errors import UserError
from latentscale.wording import counted


class SkippedSamples:
    """The set of a run's unreadable samples, the same on every process after each ``join``.

    Args:
        most: ``data.max_errors``.
        before: what the run had skipped by its last checkpoint, on every process.
        say: shown a line for each newly met sample; called on rank 0 only.
    """

    def __init__(self, most: int, before: Iterable[Skipped], say: Callable[[str], None] | None) -> None:
        self._most = most
        self._say = say
        self._known = {(sample.shard, sample.member): sample for sample in before}
        self._new: dict[tuple[int, int], Skipped] = {}
        self._told = 0

    @property
    def count(self) -> int:
        """How many there were up to the last ``join``."""
        return len(self._known)

    def samples(self) -> list[Skipped]:
        """In the order of shards and members."""
        return [self._known[place] for place in sorted(self._known)]

    def take(self, skipped: list[Skipped]) -> None:
        """Take what a loader has skipped, and clear it."""
        for sample in skipped:
            place = (sample.shard, sample.member)
            if place not in self._known:
                self._new.setdefault(place, sample)
        skipped.clear()

    def untold(self) -> int:
        """How many this process has met since it was last asked; where any process has some, all are to join."""
        untold = len(self._new) - self._told
        self._told = len(self._new)
        return untold

    def join(self) -> None:
        """Make the processes' sets one; all must call it after the same step."""
        everyone = all_gather(list(self._new.values()))
        self._new.clear()
        self._told = 0
        for sample in sorted(sample for each in everyone for sample in each):
            place = (sample.shard, sample.member)
            if place not in self._known:
                self._known[place] = sample
                if self._say is not None:
                    self._say(f"skipped: {sample.reason}")

    def failure(self) -> UserError | None:
        """Why the run must end, where there were more than ``data.max_errors`` up to the last ``join``."""
        if self.count <= self._most:
            return None
        return UserError(
            f"{counted(self.count, 'sample')} cannot be read, more than data.max_errors={self._most}: mend the data"
            " (latentscale shards verify lists what is broken) or raise data.max_errors, then run the same command"
            " to continue from the last checkpoint"
        ).on_every_process()
