"""The user's cache folder, for bundled datasets and for shards from URLs."""

import os
from pathlib import Path

from latentscale.errors import UserError
from latentscale.home_folder import home_expanded


def cache_folder() -> Path:
    """Return ``$LATENTSCALE_CACHE``, else ``$XDG_CACHE_HOME/latentscale``, else ``~/.cache/latentscale``.

    Raises:
        UserError: neither variable is set, and there is no home folder.
    """
    if chosen := os.environ.get("LATENTSCALE_CACHE"):
        return Path(home_expanded(chosen, "LATENTSCALE_CACHE"))
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "latentscale"
    try:
        return Path.home() / ".cache" / "latentscale"
    except RuntimeError as error:
        raise UserError(
            "there is no home folder for cached data: set the environment variable LATENTSCALE_CACHE to a folder"
        ) from error


def default_shard_cache() -> Path:
    """Return the default cache folder for shards from URLs."""
    return cache_folder() / "shards"
