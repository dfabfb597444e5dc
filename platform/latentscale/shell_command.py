"""How the user starts ``latentscale`` from where they are, for messages that name a command to run."""

import shlex
import shutil
import sys
from contextlib import suppress
from os import PathLike
from pathlib import Path


def shell_command(*arguments: str | PathLike[str]) -> str:
    """A ``latentscale`` command that can be pasted into the user's shell, with its arguments quoted.

    The command is called ``latentscale`` if the shell finds that of this environment. Otherwise it is this Python with
    ``-m latentscale``, relative to the current folder if it lies below: ``.venv/bin/python -m latentscale …``.
    """
    return shlex.join([*_program(), *map(str, arguments)])


def _program() -> list[str]:
    found = shutil.which("latentscale")
    # only the folders are resolved: an environment's python is a link to one outside of it
    environment = Path(sys.executable).parent.resolve()
    if found and environment in (Path(found).parent.resolve(), Path(found).resolve().parent):
        return ["latentscale"]
    python = environment / Path(sys.executable).name
    shown = Path(sys.executable)
    with suppress(OSError):  # the current folder may have been deleted
        shown = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else shown
    return [str(shown), "-m", "latentscale"]
