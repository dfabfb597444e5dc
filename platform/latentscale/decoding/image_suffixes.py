"""Which files are images, by their names."""

IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif", ".qoi"),
    )
)
"""Files with these suffixes are images; other files are ignored."""

UNREAD_SUFFIXES = frozenset((".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".jxl"))
"""Files with these suffixes are photographs too, in formats that are not read: a user must be told of them."""


def suffix(name: str) -> str:
    """The suffix of a file's name, such as ``.jpg``, in lower case; empty for ``.jpg`` alone and for none."""
    base, dot, last = name.rpartition("/")[2].rpartition(".")
    return (dot + last).lower() if base else ""
