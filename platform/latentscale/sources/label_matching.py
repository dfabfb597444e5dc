"""Finds the row of a label file for each image, where the two may spell the image's name differently."""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from latentscale.decoding.image_suffixes import IMAGE_SUFFIXES
from latentscale.errors import UserError
from latentscale.sources.listing import display_name
from latentscale.wording import counted


@dataclass(frozen=True)
class Matched:
    """The values of each image, and the names of rows without an image."""

    values: list[list[str]]
    unused: list[str]


def match_rows(names: Sequence[str], rows: Mapping[str, list[str]], folder: str, file: str, location: str) -> Matched:
    """Find each image's values.

    A name that is not in the file as it stands is looked for with ``/`` for a backslash and composed accents, then in
    any case, and then without its suffix, where the file's name has none. What is left is looked for by its end: the
    file may have more folders before a name (``/kaggle/input/pets/1.png``) or fewer (``1.png`` for ``images/1.png``).

    Args:
        names: of the images.
        rows: the values by the name in the file, which may leave the folder out.
        folder: of the file, ending in ``/`` or empty.
        file, location: of the labels and of the images, for messages.

    Raises:
        UserError: an image has no row, or two rows or images cannot be told apart.
    """
    spellings: list[tuple[Callable[[str], str], dict[str, list[str]]]] = [
        (str, {name: [name] for name in rows}),
        (_plain, _by(rows, _plain)),
        (_folded, _by(rows, _folded)),
        (_without_suffix, _by([name for name in rows if not _suffix(name)], _folded)),
    ]
    row_of: dict[str, str] = {}
    used: dict[str, str] = {}
    missing = []
    for name in names:
        variants = (name, name.removeprefix(folder))
        found = next(
            (found for spell, level in spellings for variant in variants if (found := level.get(spell(variant)))), []
        )
        if not found:
            missing.append(name)
            continue
        if len(found) > 1:
            raise UserError(
                f"{file} names {display_name(found[0])} and {display_name(found[1])}, which may both be "
                f"{display_name(name)}: keep one of them"
            )
        other = used.setdefault(found[0], name)
        if other != name:
            raise UserError(
                f"{file} names {display_name(found[0])}, which may be {display_name(other)} or {display_name(name)}: "
                "write names with their suffixes"
            )
        row_of[name] = found[0]
    row_of |= _by_ends(missing, [name for name in rows if name not in used], file)
    missing = [name for name in missing if name not in row_of]
    used_rows = set(row_of.values())
    unused = [name for name in rows if name not in used_rows]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        hint = f"; it names {display_name(unused[0])}, which is not there" if unused else ""
        raise UserError(
            f"{file} has no label for {display_name(missing[0])}{more} (of {counted(len(names), 'image')} in "
            f"{location}){hint}: add the missing labels, or use --labels none"
        )
    return Matched([rows[row_of[name]] for name in names], unused)


def _by_ends(names: Sequence[str], rows: Sequence[str], file: str) -> dict[str, str]:
    """The row of each name of which the row is the end, or which is the end of the row, after a ``/``.

    Raises:
        UserError: a row is the end of several names, or several rows end in one.
    """
    if not names or not rows:
        return {}
    found: dict[str, str] = {}
    whole = _by(names, _folded)
    stems = _by(names, _without_suffix)
    wanted = {_folded(row) for row in rows}
    ends: dict[str, list[str]] = {}
    for name in names:
        for end in wanted.intersection((*_ends(_folded(name)), *_ends(_without_suffix(name)))):
            ends.setdefault(end, []).append(name)
    for row in rows:
        spelled = _folded(row)
        longer = (whole.get(end) or (stems.get(end) if not _suffix(end) else None) for end in _ends(spelled))
        hits = next(filter(None, longer), None) or ends.get(spelled, [])
        if len(hits) > 1:
            raise UserError(
                f"{file} names {display_name(row)}, which may be {display_name(hits[0])} or {display_name(hits[1])}: "
                "write names with their folders"
            )
        if hits and (other := found.setdefault(hits[0], row)) != row:
            raise UserError(
                f"{file} names {display_name(other)} and {display_name(row)}, which may both be "
                f"{display_name(hits[0])}: keep one of them"
            )
    return found


def _ends(name: str) -> list[str]:
    """The name without its first folder, without its first two, and so on."""
    parts = name.split("/")
    return ["/".join(parts[number:]) for number in range(1, len(parts))]


def _by(names: Iterable[str], spell: Callable[[str], str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(spell(name), []).append(name)
    return found


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/")).removeprefix("./").lstrip("/")


def _folded(name: str) -> str:
    return _plain(name).casefold()


def _without_suffix(name: str) -> str:
    return _folded(name)[: -len(_suffix(name))]


def _suffix(name: str) -> str:
    """The image suffix of a name; empty if it has none."""
    _, dot, suffix = name.rpartition(".")
    return dot + suffix if (dot + suffix).casefold() in IMAGE_SUFFIXES else ""
