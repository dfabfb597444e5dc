"""Which row of a table of labels belongs to which image, where the table's names are not exactly those of the files."""

import unicodedata
from collections.abc import Callable, Iterable, Sequence

from latentscale.sources.listing import IMAGE_SUFFIXES, display_name


class Mismatch(Exception):
    """A row fits several images, or several rows fit one; the message goes on after the table's name."""


def match_rows(rows: Sequence[str], names: Sequence[str], folder: str = "") -> list[int | None]:
    """The row of each image, None for an image without one.

    The first of these rules by which a row fits an image decides:

    1. The names are equal, as they are or below the table's own folder; ``\\`` is ``/``.
    2. They are equal but for capital letters and for the composition of characters (NFC or NFD).
    3. They are equal but for the image's suffix, which the row leaves out.
    4. The row has more folders before the name, such as ``/kaggle/input/pets/1.png``.
    5. The row has fewer, such as ``1.png`` for ``images/1.png``.

    A row that fits no image is left over.

    Args:
        rows: the names in the table, each once.
        names: the images' names, with ``/`` between folders.
        folder: the table's folder, ending in ``/``; the rows may name images relative to it.

    Raises:
        Mismatch: a row fits several images by one rule, or several rows fit one image.
    """
    found: list[int | None] = [None] * len(names)
    plain_rows = [_plain(row) for row in rows]
    folded_rows, folded = [_folded(row) for row in plain_rows], [_folded(name) for name in names]
    stems = [_stem(name) for name in folded]
    beneath = _folded(folder)

    def step(
        left: list[int], keys_of_name: Callable[[int], Iterable[str]], keys_of_row: Callable[[int], Iterable[str]]
    ) -> list[int]:
        images: dict[str, list[int]] = {}
        for image, row in enumerate(found):
            if row is None:
                for key in keys_of_name(image):
                    images.setdefault(key, []).append(image)
        rest = []
        for row in left:
            hits = next((images[key] for key in keys_of_row(row) if key in images), [])
            if len(hits) > 1:
                first, second = (display_name(names[image]) for image in hits[:2])
                raise Mismatch(f"names {display_name(rows[row])}, which fits {first} and {second}: name the whole path")
            for image in hits:
                if (other := found[image]) is not None:
                    both = " and ".join(display_name(rows[number]) for number in (other, row))
                    raise Mismatch(f"names {display_name(names[image])} twice, as {both}: keep one of the entries")
                found[image] = row
            if not hits:
                rest.append(row)
        return rest

    left = step(list(range(len(rows))), lambda i: (names[i],), lambda r: (plain_rows[r], folder + plain_rows[r]))
    left = left and step(left, lambda i: (folded[i],), lambda r: (folded_rows[r], beneath + folded_rows[r]))
    left = left and step(left, lambda i: (stems[i],), lambda r: _if_stem(folded_rows[r], beneath + folded_rows[r]))
    left = left and step(left, lambda i: {folded[i], stems[i]}, lambda r: _ends(folded_rows[r]))
    if left:
        wanted = {folded_rows[row] for row in left}
        step(
            left,
            lambda i: wanted.intersection((*_ends(folded[i]), *_ends(stems[i]))),
            lambda r: (folded_rows[r],),
        )
    return found


def _plain(name: str) -> str:
    """A name with ``/`` between folders, without ``./`` and ``/`` before it."""
    if "\\" not in name and not name.startswith((".", "/")):
        return name
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def _folded(name: str) -> str:
    return (name if name.isascii() else unicodedata.normalize("NFC", name)).casefold()


def _stem(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot + suffix in IMAGE_SUFFIXES else name


def _if_stem(*names: str) -> Iterable[str]:
    return [name for name in names if _stem(name) == name]


def _ends(name: str) -> Iterable[str]:
    """The name without its first folder, without its first two, and so on."""
    parts = name.split("/")
    return ["/".join(parts[number:]) for number in range(1, len(parts))]
