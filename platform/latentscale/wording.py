"""Nouns with counts, for messages."""


def counted(count: int, one: str, many: str = "") -> str:
    """``1 image``, ``2 images``; ``many`` is the plural where adding an s is not enough."""
    return f"{count} {one if count == 1 else many or one + 's'}"
