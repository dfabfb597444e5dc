"""Reading a dataset.json: what must be in it, and what is wrong with it where it is not."""

import json
from typing import Any

from latentscale.data.shard_index import DATASET_FILE, FORMAT, VERSION
from latentscale.data.storage import Folder
from latentscale.errors import UserError


def read_description(folder: Folder) -> dict[str, Any]:
    """The content of a folder's dataset.json.

    Raises:
        UserError: it is missing, unreadable, of another format or of a newer version.
    """
    where = folder.where(DATASET_FILE)
    try:
        text = folder.description()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise UserError(
            f"{where} cannot be read ({' '.join(reason.split())}): name a folder written by latentscale shards build"
        ) from error
    try:
        description = json.loads(text)
        if description["format"] != FORMAT:
            raise ValueError(f"format {description['format']!r}")
        version = int(description["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{where} is not a description of shards ({error}): name a folder written by latentscale shards build"
        ) from error
    if version > VERSION:
        raise UserError(
            f"{where} has format version {version}, this program reads up to {VERSION}: install a newer latentscale"
        )
    return dict(description)
