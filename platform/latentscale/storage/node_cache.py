"""A node's cache of whole files, with a size limit and LRU eviction; all processes share each download.

    folder/files/SHA256          complete, verified files; the modification time is the time of last use
    folder/arriving/SHA256.BYTES space reserved for a file that is being fetched
    folder/arriving/SHA256.data  the bytes received so far
    folder/locks/                locks for fetching a file and for eviction

Files are named by their SHA-256. So equal shards of several datasets, paths or runs are stored once, and a dataset that
was replaced at its URL is never mistaken for the old one. The kernel releases all locks when their process ends. The
next process that makes room removes what a killed process has left behind.
"""

import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from latentscale.errors import UserError
from latentscale.storage.checksums import sha256_of_file
from latentscale.storage.dataset_files import MakeRoom, OpenFile, StoredFile, nothing_to_release

_WAIT_SECONDS = 0.02
# lock files are never deleted; files whose checksums share this prefix share one, which bounds their number
_LOCK_DIGITS = 3
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_DISK_SECONDS = 10.0
_log = logging.getLogger(__name__)


class WrongChecksum(Exception):
    """A downloaded file does not have the SHA-256 in dataset.json."""


class NodeCache:
    """The cache in a folder; safe for any number of threads and processes.

    Args:
        folder: a folder on this node; created if missing.
        capacity_bytes: the maximum total size. A held file (``OpenFile.hold``) is evicted only if a file that is needed
            now finds no other room; processes that have it open can still read it.
    """

    def __init__(self, folder: Path, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._files, self._arriving, self._locks = folder / "files", folder / "arriving", folder / "locks"
        self._room_lock = self._locks / "room"

    def find(self, file: StoredFile, hold: bool = False) -> OpenFile | None:
        """Return a cached file, marked as used now; None if it is not cached."""
        try:
            opened = OpenFile.of(self._files / file.sha256)
        except FileNotFoundError:
            return None
        if file.bytes is not None and os.fstat(opened.descriptor).st_size != file.bytes:
            return None
        if hold:
            opened.hold()
            if opened.unlinked:
                # another process evicted it after it was opened
                return None
        # only the owner of a file may set its times
        with suppress(PermissionError):
            os.utime(opened.descriptor)
        return opened

    def open(
        self,
        file: StoredFile,
        location: str,
        fetch: Callable[[Path], None],
        needed: bool = True,
        hold: bool = False,
        make_room: MakeRoom = nothing_to_release,
    ) -> OpenFile | None:
        """Open a file, fetching it by ``fetch(path to write)`` if it is not cached.

        Args:
            file: the file.
            location: the file's name in messages.
            fetch: downloads the file to a path.
            needed: whether to wait for other processes and for room; otherwise returns None instead of waiting.
            hold: whether to hold the file (``OpenFile.hold``), before any process can evict it.
            make_room: called if the file is needed, the disk is full, and every cached file is in use.

        Raises:
            UserError: the file is larger than the cache.
            WrongChecksum: the checksum was wrong after two downloads.
        """
        if opened := self.find(file, hold):
            return opened
        for folder in (self._files, self._arriving, self._locks):
            folder.mkdir(parents=True, exist_ok=True)
        lock = self._lock(file.sha256)
        try:
            lock.acquire(timeout=-1 if needed else 0, poll_interval=_WAIT_SECONDS)
        except Timeout:
            return None
        try:
            return self.find(file, hold) or self._fetch(file, location, fetch, needed, hold, make_room)
        finally:
            lock.release()

    def _lock(self, sha256: str) -> FileLock:
        return FileLock(self._locks / sha256[:_LOCK_DIGITS])

    def _fetch(
        self,
        file: StoredFile,
        location: str,
        fetch: Callable[[Path], None],
        needed: bool,
        hold: bool,
        make_room: MakeRoom,
    ) -> OpenFile | None:
        size = file.about_bytes if file.bytes is None else file.bytes
        if size > self._capacity_bytes:
            raise UserError(
                f"data.cache_bytes={self._capacity_bytes} is too small for {location} of {size} bytes: raise it to a"
                " few times that size, build smaller shards, or set data.mode=streaming"
            )
        reservation = self._arriving / f"{file.sha256}.{size}"
        while not self._make_room(size, reservation, needed):
            if not needed:
                return None
            # other downloads have reserved the room; their files can be evicted once complete
            time.sleep(_WAIT_SECONDS)
        arriving = self._arriving / f"{file.sha256}.data"
        try:
            for attempt in range(2):
                self._write(fetch, arriving, size, reservation.name, make_room if needed else None)
                if sha256_of_file(arriving) == file.sha256:
                    break
                if attempt:
                    raise WrongChecksum
            opened = OpenFile.of(arriving)
            if hold:
                opened.hold()
            os.fsync(opened.descriptor)
            arriving.rename(self._files / file.sha256)
            return opened
        finally:
            arriving.unlink(missing_ok=True)
            reservation.unlink(missing_ok=True)

    def _write(
        self, fetch: Callable[[Path], None], to: Path, size: int, reservation: str, make_room: MakeRoom | None
    ) -> None:
        """Fetch a file; if the disk is full although the cache is not, evict unused files, provided the file is needed.

        Args:
            fetch: downloads the file to a path.
            to: the path.
            size: the file's maximum size in bytes.
            reservation: the name of the file's reservation.
            make_room: see MakeRoom; None if the file is not needed now.
        """
        give_up_at = None
        while True:
            try:
                fetch(to)
                return
            except OSError as error:
                to.unlink(missing_ok=True)
                if make_room is None or error.errno not in _DISK_FULL:
                    raise
                with FileLock(self._room_lock, poll_interval=_WAIT_SECONDS):
                    made_room = self._evict_unused(size) or (make_room() and self._evict_unused(size))
                    others_bytes = self._reserved_bytes(reservation)
                if made_room:
                    _warn_disk_full(self._files.parent)
                    continue
                # downloads of other processes may fail too, and free their space
                give_up_at = give_up_at or time.monotonic() + _FULL_DISK_SECONDS
                if not others_bytes or time.monotonic() > give_up_at:
                    raise
            time.sleep(_WAIT_SECONDS)

    def _evict_unused(self, size: int) -> bool:
        """Evict files that no process holds, oldest first, up to ``size`` bytes; returns whether any was evicted."""
        freed = 0
        for _, entry_bytes, path in sorted(self._entries()):
            if freed >= size:
                break
            if _evict(path, include_in_use=False):
                freed += entry_bytes
        return freed > 0

    def _make_room(self, size: int, reservation: Path, needed: bool) -> bool:
        """Evict until ``size`` bytes fit, and reserve them; returns False if that is not possible now."""
        with FileLock(self._room_lock, poll_interval=_WAIT_SECONDS):
            # in this order, so that a file completed in between is counted twice rather than not at all
            arriving_bytes = self._reserved_bytes(reservation.name)
            entries = sorted(self._entries())
            excess = arriving_bytes + sum(entry_bytes for _, entry_bytes, _ in entries) + size - self._capacity_bytes
            # files in use go last, and only for a file that is needed now
            for include_in_use in (False, True) if needed else (False,):
                for _, entry_bytes, path in entries:
                    if excess <= 0:
                        break
                    if _evict(path, include_in_use):
                        excess -= entry_bytes
                entries = [entry for entry in entries if entry[2].exists()]
            if excess > 0:
                return False
            reservation.touch()
            return True

    def _entries(self) -> list[tuple[int, int, Path]]:
        """Return (time of last use in ns, size in bytes, path) of every cached file."""
        found = []
        with os.scandir(self._files) as entries:
            for entry in entries:
                status = entry.stat()
                found.append((status.st_mtime_ns, status.st_size, Path(entry.path)))
        return found

    def _reserved_bytes(self, ours: str) -> int:
        """Return the bytes reserved by other downloads than ``ours``, removing what killed processes left behind."""
        total = 0
        for path in list(self._arriving.iterdir()):
            sha256, _, suffix = path.name.partition(".")
            if path.name == ours:
                # our own reservation
                continue
            if sha256[:_LOCK_DIGITS] == ours[:_LOCK_DIGITS]:
                # we hold this lock, so no process is fetching the file
                path.unlink(missing_ok=True)
                continue
            lock = self._lock(sha256)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                total += int(suffix) if suffix.isdigit() else 0
            else:
                path.unlink(missing_ok=True)
                lock.release()
        return total


@cache
def _warn_disk_full(folder: Path) -> None:
    """Log the warning once per process."""
    _log.warning(
        "%s: the disk is full although the cache is not; shards are evicted early, and some will be fetched again",
        folder,
    )


def _evict(path: Path, include_in_use: bool) -> bool:
    try:
        opened = OpenFile.of(path)
    except FileNotFoundError:
        return False
    if not include_in_use:
        try:
            fcntl.flock(opened.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            # the file system has no locks; open files stay readable
            pass
    path.unlink(missing_ok=True)
    return True
