"""A remote file as a forward-only stream of range requests, with the next range prefetched."""

import io
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from latentscale.storage.daemon_threads import run_in_daemon_thread

RANGE_BYTES = 4 * 2**20


class RangeStream(io.RawIOBase):
    """Reads a file of known size once, forwards; the next range is fetched while the current one is read.

    Args:
        read_range: called with ``(size, offset)``; returns that range of the file. Its errors end the reading.
        size: the size of the file in bytes.
        first: the first range, if it was fetched already.
    """

    def __init__(self, read_range: Callable[[int, int], bytes], size: int, first: bytes = b"") -> None:
        self._read_range = read_range
        self._size = size
        self._range = memoryview(first)
        self._fetched = len(first)
        self._next: Future[bytes] | None = None
        self._fetch_next()

    def _fetch_next(self) -> None:
        size = min(RANGE_BYTES, self._size - self._fetched)
        read = partial(self._read_range, size, self._fetched)
        self._next = run_in_daemon_thread(read, "range ahead") if size else None
        self._fetched += size

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the current range, then from the next; returns 0 at the end."""
        if not self._range:
            if self._next is None:
                return 0
            self._range = memoryview(self._next.result())
            self._fetch_next()
        count = min(len(buffer), len(self._range))
        buffer[:count] = self._range[:count]
        self._range = self._range[count:]
        return count
