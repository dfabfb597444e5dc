"""The options of commands that write a new dataset: its folder and the size of its shards."""

import math
import re
from pathlib import Path

from latentscale.errors import UserError

# a Path collapses the two slashes into one
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


def new_folder(out: Path | None) -> Path:
    """The folder that ``--out`` names.

    Raises:
        UserError: it is missing, or is a URL.
    """
    if out is None:
        raise UserError("--out is missing: name the new dataset's folder, --out DIR")
    if _URL.match(str(out)):
        raise UserError(
            f"--out {out} is a URL, but shards are written to a folder: write to a folder and copy it there afterwards"
        )
    return out


def shard_bytes(megabytes: float) -> int:
    """``--shard-size`` in bytes.

    Raises:
        UserError: it is not finite.
    """
    if not math.isfinite(megabytes):
        raise UserError(f"--shard-size {megabytes} is not allowed: it must be a finite number of MB")
    return int(megabytes * 2**20)
