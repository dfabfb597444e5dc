"""All cases of the fuzz, in a process of its own: prints what is wrong with them, and the table at the end."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def wrong_input(arguments: list[str]) -> bool:
    """Prints what ``tests/fuzz/fuzz.py`` prints, whose options the arguments are; True if no case went wrong."""
    command = [sys.executable, "-u", str(TESTS / "fuzz" / "fuzz.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="")
    return process.returncode == 0
