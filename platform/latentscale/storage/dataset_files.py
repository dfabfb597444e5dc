"""The common interface of local and remote dataset folders."""

import fcntl
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from latentscale.regular_files import file_status

DATASET_FILE = "dataset.json"
"""The file that describes a dataset, with the sizes and checksums of its other files."""

MakeRoom = Callable[[], bool]
"""Called when the disk is full and a needed file has no room: releases held files; returns whether there were any."""


def nothing_to_release() -> bool:
    """Return False: no held files could be released."""
    return False


@dataclass(frozen=True)
class StorageOptions:
    """How files behind a URL are fetched and cached (the keys ``data.cache_folder`` and so on).

    Attributes:
        cache_folder: the node's cache, shared by its processes and by runs.
        cache_bytes: the maximum size of the cache.
        retry_seconds: how long a failing request is retried.
        stall_seconds: a transfer fails after receiving nothing for this long.
        skip_damaged: accept a local folder with missing or truncated files; reading their samples fails later.
        has_keys: whether messages name configuration keys; commands without them name LATENTSCALE_CACHE.
    """

    cache_folder: Path
    cache_bytes: int = 64 * 2**30
    retry_seconds: float = 300.0
    stall_seconds: float = 60.0
    skip_damaged: bool = False
    has_keys: bool = True

    @property
    def path_prefix(self) -> str:
        """The configuration key to put before a URL in messages, or an empty string."""
        return "data.path=" if self.has_keys else ""

    @property
    def retry_setting(self) -> str:
        """``retry_seconds`` as text for messages."""
        return f"data.retry_seconds={self.retry_seconds:g}" if self.has_keys else f"{self.retry_seconds:g} s"

    @property
    def stall_setting(self) -> str:
        """``stall_seconds`` as text for messages."""
        return f"data.stall_seconds={self.stall_seconds:g}" if self.has_keys else f"{self.stall_seconds:g} s"


@dataclass(frozen=True)
class StoredFile:
    """A file as listed in dataset.json.

    Attributes:
        name: its name in the folder.
        sha256: its SHA-256 in hexadecimal.
        bytes: its size, None if dataset.json does not give it.
        about_bytes: its maximum size if ``bytes`` is None.
    """

    name: str
    sha256: str
    bytes: int | None
    about_bytes: int


class OpenFile:
    """A file descriptor that is closed with its last reference, so that a reader can outlive a cache entry.

    An open file stays readable after it is unlinked.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def of(cls, path: Path) -> "OpenFile":
        """Open a file for reading; raises OSError if that fails."""
        file_status(path)
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def read(self, size: int, offset: int) -> bytes:
        """Read at most ``size`` bytes from ``offset``."""
        return os.pread(self.descriptor, size, offset)

    def read_all(self) -> bytes:
        """Read the whole file."""
        return self.read(os.fstat(self.descriptor).st_size, 0)

    def hold(self) -> None:
        """Mark the file as in use (shared lock), so that no process of the node evicts it from the cache."""
        # without locks the cache evicts by age alone; open files stay readable
        with suppress(OSError):
            fcntl.flock(self.descriptor, fcntl.LOCK_SH)

    @property
    def unlinked(self) -> bool:
        """Whether the file was unlinked, so that no process can find it and no cache counts its size."""
        return os.fstat(self.descriptor).st_nlink == 0

    def release(self) -> None:
        """Mark the file as no longer in use, and as last used now."""
        with suppress(OSError):
            os.utime(self.descriptor)
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def __del__(self) -> None:
        os.close(self.descriptor)


class Folder(Protocol):
    """The files of one dataset; can be pickled to worker processes.

    Attributes:
        path: the folder's path, or its URL if it is remote.
        remote: whether files are fetched before they are read.
    """

    path: Path | str
    remote: bool

    def location(self, name: str) -> str:
        """Return the full name of a file, for messages."""

    def description(self) -> str:
        """Return the text of dataset.json; raises OSError or UserError if it cannot be read."""

    def check(self, files: Iterable[StoredFile]) -> None:
        """Raise UserError for a missing file or a wrong size, as far as this needs no transfer."""

    def open(self, file: StoredFile, hold: bool = False, make_room: MakeRoom = nothing_to_release) -> OpenFile:
        """Open a file, fetching it if necessary; raises OSError or UserError if that fails.

        Args:
            file: the file.
            hold: see ``OpenFile.hold``.
            make_room: see MakeRoom.
        """

    def open_ahead(self, file: StoredFile) -> OpenFile | None:
        """Open and hold a file before it is needed; None if another process is fetching it or the cache has no room."""

    def read_range(self, file: StoredFile, size: int, offset: int) -> bytes | None:
        """Read some bytes without fetching the whole file; None if the server supports no range requests."""

    def stream(self, file: StoredFile) -> AbstractContextManager[BinaryIO]:
        """Open a file for one pass from beginning to end; the caller must verify the checksum."""
