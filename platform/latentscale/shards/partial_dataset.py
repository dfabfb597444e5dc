"""The locked folder next to the output in which a dataset is written until it is complete.

.NAME.partial/lock              locked while a process writes
.NAME.partial/progress.jsonl    resumable builds: one line for each finished shard
.NAME.partial/data/             renamed to NAME at the end
"""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latentscale.atomic import flush_to_disk, refuse_special_file
from latentscale.errors import UserError
from latentscale.shards.dataset_writer import refuse_existing, write_error

DATA = "data"
PROGRESS = "progress.jsonl"
_LOCK = "lock"


@contextmanager
def partial_folder(out: Path, restart: bool) -> Iterator[Path]:
    """Lock and yield the working folder of a build of ``out``; it stays until :func:`discard_partial`.

    Raises:
        UserError: another process is building ``out``.
    """
    folder = out.parent / f".{out.name}.partial"
    folder.mkdir(parents=True, exist_ok=True)
    refuse_special_file(folder / _LOCK)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{out} is being built by another process: wait for it, or choose another output folder"
            ) from error
        if restart:
            shutil.rmtree(folder / DATA, ignore_errors=True)
            (folder / PROGRESS).unlink(missing_ok=True)
        yield folder


@contextmanager
def new_dataset_locked(out: Path) -> Iterator[Path]:
    """Yield a locked folder that is renamed to ``out`` on success; leftovers of a killed process are removed.

    Raises:
        ShardsExist: ``out`` is not empty.
        UserError: another process is building ``out``, an unfinished build exists, or the folder cannot be written.
    """
    refuse_existing(out)
    try:
        with partial_folder(out, restart=False) as folder:
            if len(progress_lines(folder / PROGRESS)) > 1:
                raise UserError(
                    f"{folder} holds an unfinished build: finish it, remove it, or choose another output folder"
                )
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
    """Remove the working folder of a build of ``out``."""
    shutil.rmtree(out.parent / f".{out.name}.partial", ignore_errors=True)


def progress_lines(path: Path) -> list[dict[str, Any]]:
    """Read a progress file, dropping an incomplete last line; returns no lines if the file does not exist.

    Raises:
        UserError: the file is damaged.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    # a killed process may have left an incomplete last line
    complete = content[: content.rfind(b"\n") + 1]
    try:
        lines = [json.loads(line) for line in complete.splitlines()]
        cut = len(complete) != len(content)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): start the build again with --restart") from error
    if cut:
        with path.open("r+b") as stream:
            stream.truncate(len(complete))
    return lines
