"""Files and folders that are complete or absent: written under a temporary name, flushed to disk, then renamed."""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from latentscale.errors import UserError
from latentscale.wording import shown

_NAME_BYTES = 200
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISREG, "a file"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def flush_to_disk(path: Path) -> None:
    """Wait until the content of a file, or the list of names in a folder, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_special_file(path: Path) -> None:
    """Check that an output is absent or an ordinary file, also where it is a link.

    Writing to a named pipe would hang, and renaming a file to a device's name would replace the device.

    Raises:
        UserError: it is something else; names it.
    """
    _refuse_all_but(stat.S_ISREG, path, "name another file")


def refuse_special_folder(path: Path) -> None:
    """Check that an output is absent or a folder, also where it is a link.

    Raises:
        UserError: it is something else; names it.
    """
    _refuse_all_but(stat.S_ISDIR, path, "name another folder")


def _refuse_all_but(wanted: Callable[[int], bool], path: Path, remedy: str) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not wanted(mode):
        kind = next((words for is_kind, words in _KINDS if is_kind(mode)), "no ordinary file")
        raise UserError(f"{shown(path)} is {kind}, which is not replaced: {remedy}, or remove it")


def _aside(path: Path, purpose: str) -> Path:
    # in the same folder, so that the rename stays within one file system; a name has at most 255 bytes
    name = os.fsdecode(os.fsencode(path.name)[:_NAME_BYTES])
    return path.with_name(f".{name}.{purpose}-{os.getpid()}")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; on success it becomes ``path`` and replaces an existing file.

    If the body raises, ``path`` stays as it was and no temporary file is left. Missing parent folders are created.

    Raises:
        UserError: ``path`` is there and is no ordinary file.
    """
    refuse_special_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _aside(path, "new")
    try:
        yield temporary
        flush_to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_to_disk(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; on success it becomes ``path`` and replaces an existing folder.

    The body writes plain files, no subfolders. If it raises, ``path`` stays as it was. A folder cannot be
    renamed onto a non-empty one, so an old folder is first moved aside: a kill between the two renames leaves
    ``path`` absent (never half written) and the old content beside it.

    Raises:
        UserError: ``path`` is there and is no folder.
    """
    refuse_special_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _aside(path, "new"), _aside(path, "old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            flush_to_disk(file)
        flush_to_disk(temporary)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    flush_to_disk(path.parent)
