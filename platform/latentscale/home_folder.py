"""``~`` at the beginning of a path: shells expand it only where it begins a word, not in ``run.dir=~/runs``."""

from collections.abc import Sequence
from pathlib import Path

from latentscale.errors import UserError
from latentscale.wording import shown


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
