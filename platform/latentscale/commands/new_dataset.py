"""Where a new dataset goes, as the commands that write one are told."""

import math
import re
from pathlib import Path

from latentscale.errors import UserError

# a Path has made one of the two slashes
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


def new_folder(out: Path | None) -> Path:
    """The folder that ``--out`` names.

    Raises:
        UserError: there is none, or it is a URL.
    """
    if out is None:
        raise UserError("--out is missing: name the new dataset's folder, --out DIR")
    if _URL.match(str(out)):
        raise UserError(f"--out {out} is a URL, and shards are written to a folder: copy it there afterwards")
    return out


def shard_bytes(megabytes: float) -> int:
    """``--shard-size`` in bytes.

    Raises:
        UserError: it is no number of bytes.
    """
    if not math.isfinite(megabytes):
        raise UserError(f"--shard-size {megabytes} is not allowed: it must be a number of MB")
    return int(megabytes * 2**20)
