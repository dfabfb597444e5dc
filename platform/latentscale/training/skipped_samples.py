"""Samples that a run could not read: each named and counted once, whichever process found it, and however often."""

from collections.abc import Callable, Iterable

from latentscale.data.unreadable_samples import Skipped
from latentscale.distributed.agreement import all_gather
from latentscale.errors import UserError
from latentscale.shell_command import shell_command
from latentscale.wording import counted


class SkippedSamples:
    """The set of a run's unreadable samples, the same on every process after each ``join``.

    Args:
        path: ``data.path``; empty for bundled data.
        limit: ``data.max_errors``.
        before: what the run had skipped by its last checkpoint, on every process.
        warn: shows the user a line for each newly found sample.
    """

    def __init__(self, path: str, limit: int, before: Iterable[Skipped], warn: Callable[[str], None]) -> None:
        self._path = path
        self._limit = limit
        self._warn = warn
        self._known = {(sample.shard, sample.member): sample for sample in before}
        self._new: dict[tuple[int, int], Skipped] = {}
        self._announced = 0

    def samples(self) -> list[Skipped]:
        """Those known up to the last ``join``, in the order of shards and members."""
        return [self._known[place] for place in sorted(self._known)]

    def add(self, skipped: Iterable[Skipped]) -> None:
        """Add what this process has skipped."""
        for sample in skipped:
            place = (sample.shard, sample.member)
            if place not in self._known:
                self._new.setdefault(place, sample)

    def count_unannounced(self) -> int:
        """How many samples this process has found since the last call; if any process has some, all must join."""
        unannounced = len(self._new) - self._announced
        self._announced = len(self._new)
        return unannounced

    def join(self) -> None:
        """Merge the processes' sets; all must call it after the same step."""
        everyone = all_gather(list(self._new.values()))
        self._new.clear()
        self._announced = 0
        for sample in sorted(sample for each in everyone for sample in each):
            place = (sample.shard, sample.member)
            if place not in self._known:
                self._known[place] = sample
                self._warn(f"skipped: {sample.reason}")

    def failure(self) -> UserError | None:
        """Why the run must end, if there were more than ``data.max_errors`` at the last ``join``."""
        count = len(self._known)
        if count <= self._limit:
            return None
        # bundled data is in the cache, which the user has not named
        lists = f" ({shell_command('shards', 'verify', self._path)} lists what is broken)" if self._path else ""
        return UserError(
            f"{counted(count, 'sample')} cannot be read, more than data.max_errors={self._limit}: fix the data"
            f"{lists} or raise data.max_errors, then run the same command"
            " to continue from the last checkpoint"
        ).on_every_process()
