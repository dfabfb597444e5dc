"""Where the files of a dataset are: the one interface of folders on this machine and of folders behind a URL."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

DATASET_FILE = "dataset.json"
"""Describes the dataset, with the size and checksum of every other file of its folder."""

MakeRoom = Callable[[], bool]
"""Asked where a file that is needed finds the disk full: lets go of files that are held; whether there were any."""


def nothing_to_release() -> bool:
    """Nothing is held that could be let go of."""
    return False


@dataclass(frozen=True)
class StorageOptions:
    """How files behind a URL are fetched and kept (the keys ``data.cache_folder`` and so on).

    Attributes:
        cache_folder: of this node, shared by its processes and by runs.
        cache_bytes: what the files in it may take together.
        retry_seconds: how long a failing remote is tried again.
        stall_seconds: a transfer without a byte for so long has failed.
        skip_damaged: open a local folder although files are missing or cut off; their samples are found unreadable.
        has_keys: whether messages name the keys; commands have none, but LATENTSCALE_CACHE.
    """

    cache_folder: Path
    cache_bytes: int = 64 * 2**30
    retry_seconds: float = 300.0
    stall_seconds: float = 60.0
    skip_damaged: bool = False
    has_keys: bool = True

    @property
    def path_words(self) -> str:
        """What stands before a URL in messages."""
        return "data.path=" if self.has_keys else ""

    @property
    def retry_words(self) -> str:
        """``retry_seconds`` in messages."""
        return f"data.retry_seconds={self.retry_seconds:g}" if self.has_keys else f"{self.retry_seconds:g} s"

    @property
    def stall_words(self) -> str:
        """``stall_seconds`` in messages."""
        return f"data.stall_seconds={self.stall_seconds:g}" if self.has_keys else f"{self.stall_seconds:g} s"


@dataclass(frozen=True)
class StoredFile:
    """A file as dataset.json knows it.

    Attributes:
        name: within the folder.
        sha256: of its bytes, in hexadecimal.
        bytes: its size, None where dataset.json does not say it.
        about_bytes: what it takes at most, where ``bytes`` is None.
    """

    name: str
    sha256: str
    bytes: int | None
    about_bytes: int


def file_status(path: Path) -> os.stat_result:
    """What stands in a place that is to be opened.

    Raises:
        OSError: nothing, or no file: a pipe would be waited for without end, and to open a device may do something.
    """
    status = path.stat()
    # of a folder, whoever reads it says so
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EINVAL, "it is no file but a device, a pipe or a socket", str(path))
    return status


class OpenFile:
    """A descriptor that closes with its last reference: a reader keeps it while a cache forgets it.

    What has been opened stays readable when its name is removed.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def of(cls, path: Path) -> "OpenFile":
        """Open for reading; OSError where there is no such file."""
        file_status(path)
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def read(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes from ``offset`` on."""
        return os.pread(self.descriptor, size, offset)

    def read_all(self) -> bytes:
        """The whole file."""
        return self.read(os.fstat(self.descriptor).st_size, 0)

    def hold(self) -> None:
        """Tell all processes of the node that the file is in use: a node's cache keeps it while anyone says so."""
        # a file system without such locks evicts by age alone, and what is open stays readable
        with suppress(OSError):
            fcntl.flock(self.descriptor, fcntl.LOCK_SH)

    @property
    def unlinked(self) -> bool:
        """Whether its name was removed: nobody finds it any more, and no cache counts its bytes."""
        return os.fstat(self.descriptor).st_nlink == 0

    def release(self) -> None:
        """The file is no longer in use, and was so until now."""
        with suppress(OSError):
            os.utime(self.descriptor)
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def __del__(self) -> None:
        os.close(self.descriptor)


class Folder(Protocol):
    """The files of one dataset; picklable to worker processes.

    Attributes:
        path: of the folder, a URL where it is remote.
        remote: whether whole files are fetched before they are read.
    """

    path: Path | str
    remote: bool

    def location(self, name: str) -> str:
        """A file as messages name it."""

    def description(self) -> str:
        """The text of dataset.json; OSError or UserError where there is none."""

    def check(self, files: Iterable[StoredFile]) -> None:
        """Refuse missing files and wrong sizes, as far as that costs no transfer; UserError names the file."""

    def open(self, file: StoredFile, hold: bool = False, make_room: MakeRoom = nothing_to_release) -> OpenFile:
        """The file, held if so wished, fetched where it is not at hand; OSError or UserError where it cannot be had."""

    def open_ahead(self, file: StoredFile) -> OpenFile | None:
        """The same, held, before it is needed: None where another process fetches it, or no room can be made."""

    def read_range(self, file: StoredFile, size: int, offset: int) -> bytes | None:
        """Some bytes without fetching the file; None where only whole files can be had."""

    def stream(self, file: StoredFile) -> AbstractContextManager[BinaryIO]:
        """The file from its beginning to its end, once, leaving nothing behind; whoever reads checks the sum."""
