"""What a node's cache holds."""

from contextlib import suppress
from pathlib import Path


def cached_sizes(cache: Path) -> list[int]:
    """The sizes of the kept files; one that goes meanwhile, because a late fetch makes room, counts nothing."""
    sizes = []
    for path in (cache / "files").iterdir():
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sizes
