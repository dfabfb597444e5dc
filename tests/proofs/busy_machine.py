"""Tests of faults, signals and timeouts, again and again while the machine is busy: what fails rarely fails here."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latentscale.wording import counted

ROOT = Path(__file__).resolve().parents[2]
TIMED = (
    "tests/distributed/test_faults.py", "tests/distributed/test_heartbeat.py", "tests/distributed/test_agreement.py",
    "tests/training/test_interruptions.py", "tests/launchers/test_node_launcher.py",
    "tests/launchers/test_short_pauses.py", "tests/multinode/test_node_faults.py", "tests/storage",
    "tests/data/test_prefetching.py", "tests/building/test_building.py",
)  # fmt: skip
"""What waits for other processes, servers and disks."""


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Processes that compute without end, in turns of work and rest that last from milliseconds to seconds."""
    work = (
        f"import random, sys, time; sys.path.append({str(ROOT / 'tests')!r})\n"
        f"from fork_server import end_with_parent; end_with_parent({os.getpid()})\n"
        "while True:\n"
        "    until = time.monotonic() + random.expovariate(2)\n"
        "    while time.monotonic() < until: pass\n"
        "    time.sleep(random.expovariate(4))\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", work]) for _ in range(processes)]
    try:
        yield
        if any(process.poll() is not None for process in started):
            raise RuntimeError("a process that should have kept the machine busy has ended: the proof shows nothing")
    finally:
        for process in started:
            process.send_signal(signal.SIGKILL)
            process.wait()


def busy_machine(arguments: list[str]) -> bool:
    """Prints each round's result, then every test that failed and how often; True if none did."""
    parser = argparse.ArgumentParser(prog="prove.py busy-machine")
    parser.add_argument("--minutes", type=float, default=50, help="no round is started after them")
    parser.add_argument("--busy", type=int, default=2 * (os.cpu_count() or 1), help="processes that keep CPUs busy")
    parser.add_argument("tests", nargs="*", default=list(TIMED), help="files of tests")
    chosen = parser.parse_args(arguments)
    start, failures, rounds = time.monotonic(), Counter[str](), 0
    with busy(chosen.busy):
        while time.monotonic() - start < 60 * chosen.minutes:
            rounds += 1
            options = ["-n", "2", "--dist", "loadfile", "-rf", "--tb=short"]
            command = [sys.executable, "-m", "pytest", *options, *chosen.tests]
            finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            lines = finished.stdout.splitlines()
            failed = [line.split()[1] for line in lines if line.startswith(("FAILED ", "ERROR "))]
            failures.update(failed)
            print(f"round {rounds}: {lines[-1] if lines else finished.stderr}")
            if failed:
                print(finished.stdout)
            elif finished.returncode:
                failures[f"pytest ended with status {finished.returncode}"] += 1
    for test, count in failures.most_common():
        print(f"{count} of {rounds}: {test}")
    found = [counted(rounds, "round"), counted(chosen.busy, "busy process", "busy processes")]
    print(f"{' beside '.join(found)}, {counted(sum(failures.values()), 'failure')}")
    return not failures
