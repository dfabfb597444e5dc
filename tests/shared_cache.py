"""Cache folders of several test processes that share the bundled datasets, so that these are written once."""

from pathlib import Path


def share_bundled(cache: Path, bundled: Path) -> None:
    """Link a cache's bundled datasets, and the locks of whoever writes them, to those of a folder.

    Args:
        cache: a cache folder that exists.
        bundled: what all of them share; made if it is absent.
    """
    for name in ("clusters-v1", "digits-v1"):
        (bundled / name).mkdir(parents=True, exist_ok=True)
        (cache / name).symlink_to(bundled / name)
        for lock in (f".{name}-{split}.lock" for split in ("train", "test")):
            (bundled / lock).touch()
            (cache / lock).symlink_to(bundled / lock)
