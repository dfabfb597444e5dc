"""Words that depend on numbers, for lines that a user reads."""


def counted(count: int, one: str, many: str = "") -> str:
    """``1 image``, ``2 images``; ``many`` is for nouns that add more than an s."""
    return f"{count} {one if count == 1 else many or one + 's'}"
