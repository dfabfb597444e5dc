"""Files and folders that are complete or absent: written under a temporary name, flushed to disk, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def flush_to_disk(path: Path) -> None:
    """Wait until the content of a file, or the list of names in a folder, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _aside(path: Path, purpose: str) -> Path:
    # in the same folder, so that the rename stays within one file system
    return path.with_name(f".{path.name}.{purpose}-{os.getpid()}")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; on success it becomes ``path`` and replaces an existing file.

    If the body raises, ``path`` stays as it was and no temporary file is left. Missing parent folders are created.
    """
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
    """
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
