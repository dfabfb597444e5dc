"""Checks of the options of commands that write a new dataset: its folder and the size of its shards."""

import math
from pathlib import Path

from latentscale.building.build_options import megabytes_to_bytes
from latentscale.errors import UserError
from latentscale.local_paths import refuse_url


def new_folder(out: Path | None) -> Path:
    """The folder that ``--out`` names.

    Raises:
        UserError: it is missing or a URL.
    """
    if out is None:
        raise UserError("--out is missing: name the folder of the new dataset, --out DIR")
    refuse_url(str(out), "--out ", "name a folder, and upload it afterwards")
    return out


def shard_bytes(megabytes: float) -> int:
    """``--shard-size`` in bytes.

    Raises:
        UserError: it is not finite.
    """
    if not math.isfinite(megabytes):
        raise UserError(f"--shard-size {megabytes} is not allowed: it must be a finite number")
    return megabytes_to_bytes(megabytes)
