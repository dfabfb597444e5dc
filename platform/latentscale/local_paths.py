"""Paths as users give them: with ``~`` at the beginning, which shells leave in ``run.dir=~/runs``, or as URLs."""

import re
from collections.abc import Sequence
from pathlib import Path

from latentscale.errors import UserError
from latentscale.wording import shown

# a Path collapses the two slashes into one
_URL = re.compile(r"[a-z][a-z0-9+.-]+:(/|$)", re.IGNORECASE)


def expanded_arguments(arguments: Sequence[str]) -> list[str]:
    """Replace ``~`` at the beginning of every word of a command line, and of every value as in ``--out=~/data``.

    Raises:
        UserError: there is no such home folder.
    """
    expanded = []
    for word in arguments:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        expanded.append(option + equals + home_expanded(value, option or "PATH"))
    return expanded


def home_expanded(path: str, named: str) -> str:
    """Replace ``~`` or ``~user`` at the beginning of a path by the home folder.

    Args:
        path: as the user gave it.
        named: the key, option or variable, for messages.

    Raises:
        UserError: there is no such home folder.
    """
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        first = path.partition("/")[0]
        raise UserError(
            f"{named}={shown(path)}: the home folder of {shown(first)} is not known: write the whole path, or "
            f"./{shown(path)} for a folder of that name"
        ) from error


def refuse_url(path: str, named: str, remedy: str) -> None:
    """Refuse a URL where only a folder of this machine will do; its beginning would become a folder's name.

    Args:
        path: as the user gave it.
        named: the key or option with its sign, as ``run.dir=``.
        remedy: what to do.

    Raises:
        UserError: the path is a URL.
    """
    if _URL.match(path):
        raise UserError(f"{named}{shown(path)} is a URL, but must be a folder or file of this machine: {remedy}")
