"""A node's cache of whole files: fetched once however many processes ask, bounded in size, oldest used out first.

    folder/files/SHA256          complete files, checked; their time of modification is that of their last use
    folder/arriving/SHA256.BYTES room kept for a file that is being fetched
    folder/arriving/SHA256.data  what has arrived of it
    folder/locks/                held while a file is fetched, and while room is made

Files are named by their checksums: equal shards of several datasets, paths or runs are kept once, and a dataset that
was replaced at its URL is never mistaken for the old one. All locks are the kernel's and end with their process; what
a killed process has left behind is removed by the next that makes room.
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
# Lock files stay for good, so they are shared by files whose checksums begin alike.
_LOCK_DIGITS = 3
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_DISK_SECONDS = 10.0
_log = logging.getLogger(__name__)


class WrongChecksum(Exception):
    """What arrived is not what dataset.json describes."""


class NodeCache:
    """The cache in a folder; any number of threads and processes may use it at once.

    Args:
        folder: of this node; made where missing.
        capacity_bytes: of all files together. A file that a process holds (``OpenFile.hold``) goes only where a file
            that is needed at once finds no other room; it stays readable for whoever has it open.
    """

    def __init__(self, folder: Path, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._files, self._arriving, self._locks = folder / "files", folder / "arriving", folder / "locks"
        self._room_lock = self._locks / "room"

    def find(self, file: StoredFile, hold: bool = False) -> OpenFile | None:
        """The file where it is here, marked as used now."""
        try:
            opened = OpenFile.of(self._files / file.sha256)
        except FileNotFoundError:
            return None
        if file.bytes is not None and os.fstat(opened.descriptor).st_size != file.bytes:
            return None
        if hold:
            opened.hold()
            if opened.unlinked:
                # evicted since it was opened
                return None
        # another user's file keeps its time: to mark it is theirs
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
        """The file, fetched by ``fetch(path to write)`` where it is not here.

        Args:
            where: the file as messages name it.
            needed: wait for other processes and for room; else None where that would take either.
            hold: as ``OpenFile.hold``, from before anybody else can evict it.
            make_room: asked where it is needed, the disk is full, and no file here is without use.

        Raises:
            UserError: the file is larger than the cache.
            WrongChecksum: twice.
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
                f"data.cache_bytes={self._capacity_bytes} cannot hold {location} of {size} bytes: raise it to a few"
                " times that, write smaller shards, or set data.mode=streaming"
            )
        kept_room = self._arriving / f"{file.sha256}.{size}"
        while not self._make_room(size, kept_room, needed):
            if not needed:
                return None
            # others' arriving files take it; once there, they can be evicted
            time.sleep(_WAIT_SECONDS)
        arriving = self._arriving / f"{file.sha256}.data"
        try:
            for attempt in range(2):
                self._write(fetch, arriving, size, kept_room.name, make_room if needed else None)
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
            kept_room.unlink(missing_ok=True)

    def _write(
        self, fetch: Callable[[Path], None], to: Path, size: int, kept_room: str, make_room: MakeRoom | None
    ) -> None:
        """Fetch; where the disk is full before the cache is, files that nobody uses go for one that is needed now.

        Args:
            make_room: None of a file that is not needed now.
        """
        give_up_at = None
        while True:
            try:
                fetch(to)
                return
            except OSError as error:
                to.unlink(missing_ok=True)
                if make_room is None or error.errno not in _FULL:
                    raise
                with FileLock(self._room_lock, poll_interval=_WAIT_SECONDS):
                    made_room = self._evict_unused(size) or (make_room() and self._evict_unused(size))
                    others_bytes = self._kept_bytes(kept_room)
                if made_room:
                    _say_full(self._files.parent)
                    continue
                # what others fetch ahead may fail as well, and leave its room
                give_up_at = give_up_at or time.monotonic() + _FULL_DISK_SECONDS
                if not others_bytes or time.monotonic() > give_up_at:
                    raise
            time.sleep(_WAIT_SECONDS)

    def _evict_unused(self, size: int) -> bool:
        """Remove the files used longest ago of so many bytes that no process holds; whether there was any."""
        freed = 0
        for _, entry_bytes, path in sorted(self._entries()):
            if freed >= size:
                break
            if _evict(path, in_use_too=False):
                freed += entry_bytes
        return freed > 0

    def _make_room(self, size: int, kept_room: Path, needed: bool) -> bool:
        """Evict until ``size`` bytes fit, and keep them; False where that cannot be now."""
        with FileLock(self._room_lock, poll_interval=_WAIT_SECONDS):
            # in this order: a file that arrives meanwhile is counted twice rather than never
            arriving_bytes = self._kept_bytes(kept_room.name)
            entries = sorted(self._entries())
            excess = arriving_bytes + sum(entry_bytes for _, entry_bytes, _ in entries) + size - self._capacity_bytes
            # files in use last, and only for a file that is needed at once
            for in_use_too in (False, True) if needed else (False,):
                for _, entry_bytes, path in entries:
                    if excess <= 0:
                        break
                    if _evict(path, in_use_too):
                        excess -= entry_bytes
                entries = [entry for entry in entries if entry[2].exists()]
            if excess > 0:
                return False
            kept_room.touch()
            return True

    def _entries(self) -> list[tuple[int, int, Path]]:
        """Time of last use, size and path of every file."""
        found = []
        with os.scandir(self._files) as entries:
            for entry in entries:
                status = entry.stat()
                found.append((status.st_mtime_ns, status.st_size, Path(entry.path)))
        return found

    def _kept_bytes(self, ours: str) -> int:
        """What others' arriving files will take, ``ours`` not counted; what killed processes left behind is removed."""
        total = 0
        for path in list(self._arriving.iterdir()):
            sha256, _, rest = path.name.partition(".")
            if path.name == ours:
                # kept for what we fetch ourselves
                continue
            if sha256[:_LOCK_DIGITS] == ours[:_LOCK_DIGITS]:
                # the lock is ours, so nobody fetches it
                path.unlink(missing_ok=True)
                continue
            lock = self._lock(sha256)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                total += int(rest) if rest.isdigit() else 0
            else:
                path.unlink(missing_ok=True)
                lock.release()
        return total


@cache
def _say_full(folder: Path) -> None:
    """Once a process."""
    _log.warning(
        "%s: its disk is full before the cache is; shards make room for one another, and some will be fetched again",
        folder,
    )


def _evict(path: Path, in_use_too: bool) -> bool:
    try:
        opened = OpenFile.of(path)
    except FileNotFoundError:
        return False
    if not in_use_too:
        try:
            fcntl.flock(opened.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            # a file system without locks: what is open stays readable
            pass
    path.unlink(missing_ok=True)
    return True
