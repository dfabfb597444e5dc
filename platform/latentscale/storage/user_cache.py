"""The user's cache folder, for bundled datasets and for shards from URLs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$LATENTSCALE_CACHE``, else ``$XDG_CACHE_HOME/latentscale``, else ``~/.cache/latentscale``."""
    if chosen := os.environ.get("LATENTSCALE_CACHE"):
        return Path(chosen)
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "latentscale"
    return Path.home() / ".cache" / "latentscale"


def default_shard_cache() -> Path:
    """Return the default cache folder for shards from URLs."""
    return cache_folder() / "shards"
