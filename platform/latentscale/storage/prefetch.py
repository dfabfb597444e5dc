"""Threads that fetch files before they are needed and hold them."""

import threading
import time
from collections.abc import Collection, Sequence
from math import inf
from typing import NamedTuple, Protocol

from latentscale.storage.dataset_files import MakeRoom, OpenFile
from latentscale.storage.open_file_limit import raise_open_file_limit
from latentscale.storage.retrying import fetch_is_transient

# of each reading process; as many again fetch only what is needed at once
THREADS = 4

# of a shard that could not be fetched ahead: so long, then twice that, and so on
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0
_FAILED_SECONDS = 10.0
# of the files that the process may have open, what is held may take
_HELD_PART = 0.5


class PrefetchedFiles(Protocol):
    """The shards of a dataset, as far as prefetching is concerned.

    Attributes:
        held: the open shards, which are not removed from the node's cache.
    """

    held: dict[int, OpenFile]

    def fetch(self, shard: int, needed: bool, make_room: MakeRoom = ...) -> OpenFile | None:
        """Fetch and open a shard; see ``ShardedDataset.fetch``."""


class _Backoff(NamedTuple):
    """How long a shard is left alone.

    Attributes:
        until: by the monotonic clock; infinite where only a need of it changes anything.
        seconds: how long that is.
        failed: whether the remote, rather than a lack of room, is why.
    """

    until: float
    seconds: float
    failed: bool


class ShardPrefetcher:
    """Threads that hold the shards of a dataset which are wanted, in the order of their need.

    What cannot be fetched ahead is left alone for a while that doubles; without room until room is made here, and where
    the remote has no such file, or has it damaged, until it is needed. Where the disk has no room for a needed shard,
    those that are held for later are released for it.

    Attributes:
        released: how often shards that are still wanted were.
    """

    def __init__(self, dataset: PrefetchedFiles) -> None:
        self._dataset = dataset
        self._changed = threading.Condition()
        self._needed: frozenset[int] = frozenset()
        self._wanted: dict[int, None] = {}
        self._busy: set[int] = set()
        self._failed: dict[int, tuple[Exception, float]] = {}
        self._paused: dict[int, _Backoff] = {}
        self._most_held = 0
        self._closed = False
        self.released = 0

    def start(self) -> None:
        """Start the threads."""
        self._most_held = int(_HELD_PART * raise_open_file_limit())
        for number in range(2 * THREADS):
            threading.Thread(
                target=self._work, args=(number < THREADS,), name=f"shard fetcher {number}", daemon=True
            ).start()

    def want(self, needed: Collection[int], later: Sequence[int]) -> None:
        """Return when all of ``needed`` are held; ``later`` follow in the background, others are released.

        Raises:
            UserError: a needed shard cannot be had.
        """
        with self._changed:
            # one moment decides who failed lately: who then still did is not fetched again, and would be waited for
            asked_at = time.monotonic()
            wanted = dict.fromkeys([*needed, *later])
            others = wanted.keys() != self._wanted.keys()
            self._needed, self._wanted = frozenset(needed), wanted
            for shard in self._dataset.held.keys() - wanted.keys():
                self._dataset.held.pop(shard).release()
            self._paused = {
                shard: pause
                for shard, pause in self._paused.items()
                if shard in wanted and (pause.failed or not others)
            }
            for shard in needed:
                if not self._failed_lately(shard, asked_at):
                    self._paused.pop(shard, None)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._needed <= self._dataset.held.keys() or bool(self._failure(asked_at)))
            if (error := self._failure(asked_at)) is not None:
                raise error

    def holds(self, shards: Collection[int]) -> bool:
        """Whether all of these are held."""
        with self._changed:
            return self._dataset.held.keys() >= set(shards)

    def close(self) -> None:
        """End the threads after what they are at, and release everything."""
        with self._changed:
            self._closed = True
            self._needed, self._wanted = frozenset(), {}
            while self._dataset.held:
                self._dataset.held.popitem()[1].release()
            self._changed.notify_all()

    def _failure(self, asked_at: float) -> Exception | None:
        """Why a needed shard cannot be had, for a while: whoever asks again at once is not kept waiting again."""
        return next((self._failed[shard][0] for shard in self._needed if self._failed_lately(shard, asked_at)), None)

    def _failed_lately(self, shard: int, asked_at: float) -> bool:
        return shard in self._failed and asked_at - self._failed[shard][1] < _FAILED_SECONDS

    def _next(self, ahead: bool) -> tuple[int | None, float | None]:
        """A shard to fetch now; without one, the seconds after which a pause ends."""
        now, held = time.monotonic(), self._dataset.held
        full = len(held) + len(self._busy) >= self._most_held
        pause_ends: float | None = None
        for shard in self._wanted if ahead else self._needed:
            if shard in held or shard in self._busy or (full and shard not in self._needed):
                continue
            pause = self._paused.get(shard)
            if pause is None or pause.until <= now:
                return shard, None
            if pause.until < inf:
                pause_ends = min(pause.until, pause_ends or inf)
        return None, None if pause_ends is None else pause_ends - now

    def _pause(self, shard: int, error: Exception | None, needed: bool) -> None:
        """Leave a shard alone that could not be had, unless it has become needed meanwhile."""
        if not needed and shard in self._needed:
            return
        if error is not None and (needed or not fetch_is_transient(error)):
            # whoever needs it next asks again
            self._paused[shard] = _Backoff(inf, inf, True)
            return
        self._pause_longer(shard, error is not None)

    def _pause_longer(self, shard: int, failed: bool) -> None:
        last = self._paused.get(shard)
        seconds = _FIRST_PAUSE_SECONDS if last is None else min(2 * last.seconds, _LONGEST_PAUSE_SECONDS)
        self._paused[shard] = _Backoff(time.monotonic() + seconds, seconds, failed)

    def _release_prefetched(self) -> bool:
        """Let go of what is held but not needed now, where a needed shard finds no room; whether there was any."""
        with self._changed:
            later = self._dataset.held.keys() - self._needed
            for shard in later:
                self._dataset.held.pop(shard).release()
                self._pause_longer(shard, failed=True)
            self.released += bool(later)
            return bool(later)

    def _work(self, ahead: bool) -> None:
        while True:
            with self._changed:
                while True:
                    if self._closed:
                        return
                    shard, pause_seconds = self._next(ahead)
                    if shard is not None:
                        break
                    self._changed.wait(pause_seconds)
                self._busy.add(shard)
                needed = shard in self._needed
            opened, error = None, None
            try:
                opened = self._dataset.fetch(shard, needed, self._release_prefetched)
            except Exception as raised:
                error = raised
            with self._changed:
                self._busy.discard(shard)
                if opened:
                    self._paused.pop(shard, None)
                    if shard in self._wanted:
                        self._dataset.held[shard] = opened
                elif shard in self._wanted:
                    self._pause(shard, error, needed)
                    if error and needed:
                        self._failed[shard] = error, time.monotonic()
                opened = None
                self._changed.notify_all()
