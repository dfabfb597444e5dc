"""Every equality test fails on code that breaks what it guards: the code is broken in a copy, one fault at a time."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from faults_in_code import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 900.0
# how pytest's reason begins when a test, or what it waits for, is not over in time
TIME_LIMITS = (" - Failed: Timeout ", " - subprocess.TimeoutExpired")
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


class Outcome(NamedTuple):
    """How tests ended.

    Attributes:
        passed: all of them.
        failure: the test that failed first, with pytest's reason; empty if none did.
        output: what pytest printed.
    """

    passed: bool
    failure: str
    output: str


def run_tests(root: Path, tests: tuple[str, ...], limit_seconds: float = LIMIT_SECONDS) -> Outcome:
    """Run tests on a copy of the code until the first fails.

    Only a test's own body fails. Tests that cannot be collected or set up, and tests that are not over in time, show
    nothing of the code.
    """
    environment = {**os.environ, "PYTHONPATH": str(root / "platform"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-n0", "-x", "-q", "-p", "no:cacheprovider", "--tb=line", *tests]
    with subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output = process.communicate(timeout=limit_seconds)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return Outcome(False, "", f"not over after {limit_seconds:.0f} s")
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    # what pytest sums up: ERROR is a test's setup or a file's collection
    failed = [line.removeprefix("FAILED ") for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    first = failed[0] if process.returncode == pytest.ExitCode.TESTS_FAILED and failed else ""
    is_failure = not first.startswith("ERROR ") and not any(limit in first for limit in TIME_LIMITS)
    return Outcome(process.returncode == 0, first if is_failure else "", output)


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
    found, on_whole = 0, dict[tuple[str, ...], Outcome]()
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
            if fault.tests not in on_whole:
                on_whole[fault.tests] = run_tests(whole, fault.tests)
            before, after = on_whole[fault.tests], run_tests(broken, fault.tests)
            shutil.rmtree(broken)
            if not before.passed:
                verdict = f"CANNOT BE JUDGED: its tests do not pass on the whole code:\n{before.output[-2000:]}"
            elif after.passed:
                verdict = f"NOT FOUND by {' '.join(fault.tests)}"
            elif not after.failure:
                verdict = f"CANNOT BE JUDGED: its tests do not run on the broken code:\n{after.output[-2000:]}"
            else:
                verdict, found = f"found by {after.failure[:300]}", found + 1
            print(f"{fault.name}: {verdict} ({time.monotonic() - start:.0f} s)")
    print(f"{found} of {len(faults)} faults were found")
    return found == len(faults)
