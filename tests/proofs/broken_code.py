"""Every equality test fails on code that breaks what it guards: the code is broken in a copy, one fault at a time."""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from faults_in_code import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    "platform",
    "recipes",
    "launchers",
    "tests",
    "docs",
    "pyproject.toml",
    "README.md",
    "CONTRIBUTING.md",
    "Makefile",
)


def apply(fault: Fault, root: Path) -> None:
    """Break the code of a copy.

    Raises:
        ValueError: when the code does not hold the fault's line exactly once.
    """
    path = root / fault.file
    text = path.read_text()
    if (count := text.count(fault.right)) != 1:
        raise ValueError(f"{fault.file} has {fault.right!r} {count} times, not once: bring {fault.name} up to date")
    path.write_text(text.replace(fault.right, fault.wrong))


def run_tests(root: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """The tests on a copy of the code, the first failure ending them."""
    environment = {**os.environ, "PYTHONPATH": str(root / "platform"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-n0", "-x", "-q", "-p", "no:cacheprovider", "--tb=line", *tests]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def broken_code(arguments: list[str]) -> bool:
    """Prints a line for each fault: found by which test, or not found; True if all are found.

    The tests of a fault are first run on the code as it is, where they must pass.
    """
    parser = argparse.ArgumentParser(prog="prove.py broken-code")
    parser.add_argument("faults", nargs="*", help="names of faults; all without any")
    wanted = parser.parse_args(arguments).faults
    if unknown := set(wanted) - {fault.name for fault in FAULTS}:
        parser.error(f"there is no fault {', '.join(sorted(unknown))}")
    faults = [fault for fault in FAULTS if not wanted or fault.name in wanted]
    found = 0
    with TemporaryDirectory(prefix="latentscale-faults-") as folder:
        whole = Path(folder) / "whole"
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, whole / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy2(source, whole / name)
        for fault in faults:
            start, broken = time.monotonic(), Path(folder) / "broken"
            shutil.copytree(whole, broken)
            apply(fault, broken)
            before, after = run_tests(whole, fault.tests), run_tests(broken, fault.tests)
            shutil.rmtree(broken)
            failed = [line for line in after.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
            if before.returncode != 0:
                verdict = f"cannot be judged, for the tests fail on whole code:\n{before.stdout[-2000:]}"
            elif after.returncode != 1 or not failed:
                verdict = f"NOT FOUND by {' '.join(fault.tests)}"
            else:
                verdict, found = f"found by {failed[0].split()[1]}", found + 1
            print(f"{fault.name}: {verdict} ({time.monotonic() - start:.0f} s)")
    print(f"{found} of {len(faults)} faults were found")
    return found == len(faults)
