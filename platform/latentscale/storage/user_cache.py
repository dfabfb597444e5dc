"""The user's cache folder, for bundled datasets and for shards from URLs."""

import os
from pathlib import Path

from latentscale.errors import UserError
from latentscale.local_paths import home_expanded, refuse_url


def cache_folder() -> Path:
    """Return ``$LATENTSCALE_CACHE``, else ``$XDG_CACHE_HOME/latentscale``, else ``~/.cache/latentscale``.

    Raises:
        UserError: one of them is a URL, or neither is set and there is no home folder.
    """
    if chosen := os.environ.get("LATENTSCALE_CACHE"):
        refuse_url(chosen, "LATENTSCALE_CACHE=", "name a folder")
        return Path(home_expanded(chosen, "LATENTSCALE_CACHE"))
    if caches := os.environ.get("XDG_CACHE_HOME"):
        refuse_url(caches, "XDG_CACHE_HOME=", "name a folder")
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
