"""The user's cache folder: bundled datasets that were written once, and shards from URLs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$LATENTSCALE_CACHE``, else ``$XDG_CACHE_HOME/latentscale``, else ``~/.cache/latentscale``."""
    if chosen := os.environ.get("LATENTSCALE_CACHE"):
        return Path(chosen)
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "latentscale"
    return Path.home() / ".cache" / "latentscale"


def default_shard_cache() -> Path:
    """Where shards from URLs are kept unless the user says otherwise."""
    return cache_folder() / "shards"
