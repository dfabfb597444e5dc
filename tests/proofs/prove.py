"""Runs a proof that is too long for CI, and keeps its output: ``make prove-NAME``.

``python tests/proofs/prove.py NAME [OPTION…]``. The output goes to the terminal and to tests/proofs/NAME.txt, after the
date, the commit, the machine and the versions. The file is replaced when the proof has ended, whether it held or not.
Ends with status 1 if it did not hold.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from importlib.metadata import version
from io import TextIOBase
from pathlib import Path
from typing import TextIO

import psutil
from broken_code import broken_code
from busy_machine import busy_machine
from wrong_input import wrong_input

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
LIBRARIES = ("torch", "accelerate", "deepspeed", "numpy", "webdataset", "pytest")

Proof = Callable[[list[str]], bool]
PROOFS: dict[str, Proof] = {"broken-code": broken_code, "busy-machine": busy_machine, "fuzz": wrong_input}
"""By name: prints what it finds, and returns whether everything held. Its arguments are the command line's."""


class Both(TextIOBase):
    """Writes to a terminal and a file."""

    def __init__(self, *streams: TextIO) -> None:
        self._streams = streams

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
            stream.flush()
        return len(text)


def header(name: str, arguments: list[str]) -> str:
    """When, of what, on what and with what a proof is run."""
    commit = _output("git", "rev-parse", "--short=12", "HEAD") or "unknown"
    changed = " with changes" if _output("git", "status", "--porcelain", "--untracked-files=no") else ""
    memory = f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
    lines = {
        "proof": " ".join([name, *arguments]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit + changed,
        "machine": f"{_processor()}, {os.cpu_count()} CPUs, {memory}, {platform.system()} {platform.release()}",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{library} {version(library)}" for library in LIBRARIES)]
        ),
    }
    return "".join(f"{title:<10}{text}\n" for title, text in lines.items()) + "\n"


def prove(name: str, arguments: list[str], folder: Path = FOLDER) -> bool:
    """Run a proof and keep its output in ``folder/NAME.txt``."""
    kept, unfinished = folder / f"{name}.txt", folder / f"{name}.txt.part"
    start = time.monotonic()
    try:
        with unfinished.open("w") as file:
            both = Both(sys.stdout, file)
            with redirect_stdout(both), redirect_stderr(both):
                print(header(name, arguments), end="")
                held = PROOFS[name](arguments)
                minutes = (time.monotonic() - start) / 60
                print(f"\n{'held' if held else 'DID NOT HOLD'} after {minutes:.1f} minutes")
        unfinished.replace(kept)
    finally:
        unfinished.unlink(missing_ok=True)
    return held


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=sorted(PROOFS))
    chosen, rest = parser.parse_known_args()
    sys.exit(0 if prove(chosen.name, rest) else 1)


if __name__ == "__main__":
    main()
