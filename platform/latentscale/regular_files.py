"""Small files that users may have changed: read as a whole, and only where they are regular files."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any


def file_status(path: Path) -> os.stat_result:
    """Return the status of a path before it is opened.

    Raises:
        OSError: the path does not exist, or is a device, pipe or socket. Opening a pipe could block forever, and
            opening a device may have side effects.
    """
    status = path.stat()
    # a folder is accepted here: reading it raises a clear error
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EINVAL, "it is a device, a pipe or a socket, not a file", str(path))
    return status


def read_file(path: Path) -> bytes:
    """Read a regular file.

    Raises:
        OSError: it cannot be read, or is a device, pipe or socket.
    """
    file_status(path)
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """Read a regular file of JSON.

    Raises:
        OSError: it cannot be read, or is a device, pipe or socket.
        ValueError: it does not hold JSON in UTF-8, or is nested too deeply to be read.
    """
    content = read_file(path)
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
