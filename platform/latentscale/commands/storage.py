"""How commands read a dataset behind a URL."""

from typing import TYPE_CHECKING

from latentscale.errors import interruptible_imports

if TYPE_CHECKING:
    from latentscale.storage.dataset_files import StorageOptions

RETRY_SECONDS = 30.0
"""Short, since a user waits: a remote that does not reply should be reported soon."""


def options_for(path: str) -> "StorageOptions | None":
    """The storage options for a URL, with training's default cache; None for a folder."""
    with interruptible_imports():
        from latentscale.storage.dataset_files import StorageOptions
        from latentscale.storage.remote import is_remote
        from latentscale.storage.user_cache import cache_folder

    if not is_remote(path):
        return None
    return StorageOptions(cache_folder() / "shards", retry_seconds=RETRY_SECONDS, has_keys=False)
