"""Threads that fetch shards before they are needed and hold them."""

import threading
import time
from collections.abc import Collection, Sequence
from math import inf
from typing import NamedTuple, Protocol

from latentscale.storage.dataset_files import MakeRoom, OpenFile
from latentscale.storage.open_file_limit import raise_open_file_limit
from latentscale.storage.retrying import fetch_is_transient

# prefetching threads of each reading process; as many more fetch only what is needed now
THREADS = 4

# the pause after a failed prefetch of a shard doubles from the first to the longest
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0
_FAILED_SECONDS = 10.0
# the share of the open file limit that held shards may use
_HELD_SHARE = 0.5


class PrefetchedFiles(Protocol):
    """The part of a dataset that prefetching needs.

    Attributes:
        held: open shards by number; the node's cache does not evict them.
    """

    held: dict[int, OpenFile]

    def fetch(self, shard: int, needed: bool, make_room: MakeRoom = ...) -> OpenFile | None:
        """Fetch and open a shard; see ``ShardedDataset.fetch``."""


class _Backoff(NamedTuple):
    """A pause in prefetching one shard.

    Attributes:
        until: its end by the monotonic clock; infinite if it lasts until the shard is needed.
        seconds: its length.
        failed: whether an error or a full disk caused it, rather than a full cache or another process's download.
    """

    until: float
    seconds: float
    failed: bool


class ShardPrefetcher:
    """Threads that fetch and hold the wanted shards of a dataset, in the order in which they are needed.

    A failed prefetch of a shard is retried after a pause that doubles each time. A pause for lack of room ends early
    when the wanted shards change. If the remote file is missing or damaged, the shard is not tried again until it is
    needed. If the disk has no room for a needed shard, shards held for later are released.

    Attributes:
        released: how often wanted shards were released to make room.
    """

    def __init__(self, dataset: PrefetchedFiles) -> None:
        self._dataset = dataset
        self._changed = threading.Condition()
        self._needed: frozenset[int] = frozenset()
        self._wanted: dict[int, None] = {}
        self._busy: set[int] = set()
        self._failed: dict[int, tuple[Exception, float]] = {}
        self._paused: dict[int, _Backoff] = {}
        self._max_held = 0
        self._closed = False
        self.released = 0

    def start(self) -> None:
        """Start the threads."""
        self._max_held = int(_HELD_SHARE * raise_open_file_limit())
        for number in range(2 * THREADS):
            threading.Thread(
                target=self._work, args=(number < THREADS,), name=f"shard fetcher {number}", daemon=True
            ).start()

    def want(self, needed: Collection[int], later: Sequence[int]) -> None:
        """Wait until all of ``needed`` are held; ``later`` are fetched in the background, other shards are released.

        Raises:
            UserError: a needed shard cannot be fetched or read.
        """
        with self._changed:
            # one time for all checks: if a recent failure expired between them, this would wait for a shard that no
            # thread fetches
            asked_at = time.monotonic()
            wanted = dict.fromkeys([*needed, *later])
            changed = wanted.keys() != self._wanted.keys()
            self._needed, self._wanted = frozenset(needed), wanted
            for shard in self._dataset.held.keys() - wanted.keys():
                self._dataset.held.pop(shard).release()
            self._paused = {
                shard: pause
                for shard, pause in self._paused.items()
                if shard in wanted and (pause.failed or not changed)
            }
            for shard in needed:
                if not self._failed_recently(shard, asked_at):
                    self._paused.pop(shard, None)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._needed <= self._dataset.held.keys() or bool(self._failure(asked_at)))
            if (error := self._failure(asked_at)) is not None:
                raise error

    def holds(self, shards: Collection[int]) -> bool:
        """Return whether all of these shards are held."""
        with self._changed:
            return self._dataset.held.keys() >= set(shards)

    def close(self) -> None:
        """Stop the threads after their current fetch, and release all shards."""
        with self._changed:
            self._closed = True
            self._needed, self._wanted = frozenset(), {}
            while self._dataset.held:
                self._dataset.held.popitem()[1].release()
            self._changed.notify_all()

    def _failure(self, asked_at: float) -> Exception | None:
        """Return a recent error of a needed shard: asking again soon fails at once instead of waiting again."""
        return next((self._failed[shard][0] for shard in self._needed if self._failed_recently(shard, asked_at)), None)

    def _failed_recently(self, shard: int, asked_at: float) -> bool:
        return shard in self._failed and asked_at - self._failed[shard][1] < _FAILED_SECONDS

    def _next(self, ahead: bool) -> tuple[int | None, float | None]:
        """Return a shard to fetch now, or else the seconds until the next pause ends (None: no pause ends)."""
        now, held = time.monotonic(), self._dataset.held
        full = len(held) + len(self._busy) >= self._max_held
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
        """Pause a shard whose fetch failed, unless it has become needed in the meantime."""
        if not needed and shard in self._needed:
            return
        if error is not None and (needed or not fetch_is_transient(error)):
            # tried again when the shard is next needed
            self._paused[shard] = _Backoff(inf, inf, True)
            return
        self._pause_longer(shard, error is not None)

    def _pause_longer(self, shard: int, failed: bool) -> None:
        last = self._paused.get(shard)
        seconds = _FIRST_PAUSE_SECONDS if last is None else min(2 * last.seconds, _LONGEST_PAUSE_SECONDS)
        self._paused[shard] = _Backoff(time.monotonic() + seconds, seconds, failed)

    def _release_prefetched(self) -> bool:
        """Release shards that are held but not needed now, to make room; returns whether there were any."""
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
