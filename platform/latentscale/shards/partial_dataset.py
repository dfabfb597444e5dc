"""The locked folder beside a dataset in which it is written until it is complete.

.NAME.partial/lock              held while a process writes
.NAME.partial/progress.jsonl    of a build that can be resumed: a line for each finished shard
.NAME.partial/data/             becomes NAME
"""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latentscale.atomic import flush_to_disk
from latentscale.errors import UserError
from latentscale.shards.dataset_writer import refuse_existing, write_error

DATA = "data"
PROGRESS = "progress.jsonl"
_LOCK = "lock"


@contextmanager
def partial_folder(out: Path, restart: bool) -> Iterator[Path]:
    """The locked folder in which a build towards ``out`` is kept; it stays until :func:`discard`.

    Raises:
        UserError: another process is building there.
    """
    folder = out.parent / f".{out.name}.partial"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{out} is being built by another process: wait for it, or write elsewhere") from error
        if restart:
            shutil.rmtree(folder / DATA, ignore_errors=True)
            (folder / PROGRESS).unlink(missing_ok=True)
        yield folder


@contextmanager
def new_dataset_locked(out: Path) -> Iterator[Path]:
    """Yield a folder that becomes ``out`` when the body ends; what a killed process has left of it is dropped.

    Raises:
        ShardsExist: ``out`` already holds something.
        UserError: another process or an unfinished build is at it, or the folder cannot be written.
    """
    refuse_existing(out)
    try:
        with partial_folder(out, restart=False) as folder:
            if len(progress_lines(folder / PROGRESS)) > 1:
                raise UserError(f"{folder} holds an unfinished build: let it end, remove it, or write elsewhere")
            data = folder / DATA
            shutil.rmtree(data, ignore_errors=True)
            data.mkdir()
            try:
                yield data
                flush_to_disk(data)
                data.rename(out)
                flush_to_disk(out.parent)
            finally:
                discard_partial(out)
    except OSError as error:
        raise write_error(out, error) from error


def discard_partial(out: Path) -> None:
    """Remove what a build has kept beside ``out``."""
    shutil.rmtree(out.parent / f".{out.name}.partial", ignore_errors=True)


def progress_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a progress file; none where it does not exist.

    Raises:
        UserError: the file is damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    # a kill may have cut the last line off
    whole = content[: content.rfind(b"\n") + 1]
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
        cut = len(whole) != len(content)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): drop the unfinished build with --restart") from error
    if cut:
        with path.open("r+b") as stream:
            stream.truncate(len(whole))
    return lines
