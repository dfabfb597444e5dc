"""Gives the product wrong input, seeded, and counts how it ends: ``make fuzz``.

Each case is a command of the product with a changed argument, file or environment. It must end well, or be refused in
one line. The table at the end counts the outcomes of each kind; of each case that went wrong, a line tells how to
run it alone: ``PYTHONPATH=tests python tests/fuzz/fuzz.py --case KIND:NUMBER``. Ends with status 1 if there is one.
"""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random

from kinds import KINDS, Case
from material import Material, case_environment, make_material

from forked import ForkedProcess, fork_server

DEFAULT_CASES = 12_000
HANG_SECONDS = 60.0
# what is cheap is asked more often
WEIGHTS = {"arguments": 6, "presets": 5, "options": 3, "label files": 2}


class Outcome(StrEnum):
    """How a case ended."""

    OK = "ok"
    REFUSED = "refused in one line"
    TRACEBACK = "traceback"
    HANG = "hang"
    SILENT = "silent wrong"
    MESSAGE = "bad message"


@dataclass(frozen=True)
class Ending:
    """The outcome of one case.

    Attributes:
        seconds: how long it took.
        why: what is wrong with it, if anything.
    """

    kind: str
    number: int
    outcome: Outcome
    seconds: float
    why: str = ""

    @property
    def wrong(self) -> bool:
        return self.outcome not in (Outcome.OK, Outcome.REFUSED)

    def described(self) -> str:
        """What is wrong, and the command that runs the case alone."""
        why, name = self.why.encode("unicode_escape").decode(), shlex.quote(f"{self.kind}:{self.number}")
        return f"{self.outcome}: {why}\n  PYTHONPATH=tests python tests/fuzz/fuzz.py --case {name}"


def run_case(kind: str, number: int, material: Material, folder: Path) -> tuple[Ending, Case, str, str]:
    """Run one case in an empty folder; also returns its command and what it printed."""
    folder.mkdir(parents=True)
    case = KINDS[kind](Random(f"{kind} {number}"), folder, material)
    began = time.monotonic()
    process = ForkedProcess(case.argv, folder, case.environment)
    try:
        out, err = process.communicate(timeout=HANG_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        out, err, outcome, why = "", "", Outcome.HANG, f"ran for more than {HANG_SECONDS:g} seconds"
    else:
        outcome, why = judged(process.returncode, out, err, case)
    return Ending(kind, number, outcome, time.monotonic() - began, why), case, out, err


def judged(status: int | None, out: str, err: str, case: Case) -> tuple[Outcome, str]:
    """How a command ended, and what is wrong with it."""
    if "Traceback (most recent call last)" in out + err:
        return Outcome.TRACEBACK, err.strip().splitlines()[-1][:200]
    if status not in (0, 2, 75):
        return Outcome.TRACEBACK, f"status {status}: {(err or out).strip()[-200:]}"
    if status == 0:
        wrong = case.check(out)
        return (Outcome.SILENT, wrong) if wrong else (Outcome.OK, "")
    # the options' own library shows the usage with what is wrong
    if "Usage:" in err:
        return Outcome.REFUSED, ""
    # verify reports all that it finds, as its result
    if "verify" in case.argv and out and not err:
        return Outcome.REFUSED, ""
    wrong = bad_message(err)
    return (Outcome.MESSAGE, wrong) if wrong else (Outcome.REFUSED, "")


def bad_message(err: str) -> str:
    """What is wrong with the message of a refusal, or nothing."""
    lines = [line for line in err.splitlines() if re.match(r"(error|launcher of node \d+): ?", line)]
    if len(lines) != 1:
        return f"{len(lines)} lines of errors in {err[-300:]!r}"
    message = lines[0]
    if not err.rstrip("\n").endswith(message):
        return f"lines after the error: {err[-300:]!r}"
    if re.match(r"error: ( |is |must |:)", message):
        return f"its first word is missing: {message[:200]!r}"
    if re.search(r"((?<!=)= {1,2}|\w {2})(is|are|was|has|does|must|cannot) ", message):
        return f"an empty value: {message[:300]!r}"
    if not message.isprintable():
        return f"control characters: {message[:200]!r}"
    if found := re.search(
        r"<class|<function|NoneType|ListConfig|DictConfig|PosixPath|object at 0x|dtype\(|np\.\w+\(", message
    ):
        return f"an internal name, {found[0]}: {message[:300]!r}"
    if len(message) > 2000:
        return f"{len(message)} characters: {message[:200]!r}"
    return ""


def plan(cases: int, kinds: Sequence[str], first: int) -> list[tuple[str, int]]:
    """Which cases to run: of each kind a share, numbered from ``first``."""
    weights = {kind: WEIGHTS.get(kind, 1) for kind in kinds}
    counts = {kind: max(1, round(cases * weight / sum(weights.values()))) for kind, weight in weights.items()}
    return [(kind, first + number) for number in range(max(counts.values())) for kind in kinds if number < counts[kind]]


def run_cases(chosen: Sequence[tuple[str, int]], folder: Path, jobs: int) -> Iterator[Ending]:
    """Run cases, some at a time; what they wrote is removed."""
    material = make_material(folder)
    counter, lock = iter(range(len(chosen))), threading.Lock()

    def one(case: tuple[str, int]) -> Ending:
        with lock:
            place = folder / f"case-{next(counter)}"
        ending, *_ = run_case(*case, material, place)
        shutil.rmtree(place, ignore_errors=True)
        return ending

    fork_server()
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(one, chosen)


def table(endings: Sequence[Ending]) -> str:
    """Kinds by outcomes."""
    rows = []
    for kind in [*dict.fromkeys(ending.kind for ending in endings), "all"]:
        own = [ending for ending in endings if kind in (ending.kind, "all")]
        counts = Counter(ending.outcome for ending in own)
        rows.append([kind, str(len(own)), *(str(counts[outcome]) for outcome in Outcome)])
    rows.insert(0, ["kind", "cases", *Outcome])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=DEFAULT_CASES, help=f"number of cases (default {DEFAULT_CASES})")
    parser.add_argument("--seed", type=int, default=0, help="other cases for another seed")
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of cases, separated by commas")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time")
    parser.add_argument("--case", help="run one case alone, KIND:NUMBER, and show all that it prints")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="latentscale-fuzz-") as temporary:
        folder = Path(temporary)
        if options.case:
            kind, _, number = options.case.rpartition(":")
            ending, case, out, err = run_case(kind, int(number), make_material(folder), folder / "case")
            changed = dict(set(case.environment.items()) - set(case_environment().items()))
            print(f"{shlex.join(case.argv)!r}\nenvironment: {changed}\n--- stdout\n{out}\n--- stderr\n{err}")
            print(f"{ending.outcome} after {ending.seconds:.1f} s. {ending.why}")
            return int(ending.wrong)
        chosen = plan(options.cases, options.kinds.split(","), options.seed * 1_000_000)
        endings: list[Ending] = []
        for ending in run_cases(chosen, folder, options.jobs):
            endings.append(ending)
            if ending.wrong:
                print(ending.described(), flush=True)
            if len(endings) % 500 == 0:
                print(f"{len(endings)} of {len(chosen)} cases", file=sys.stderr, flush=True)
    slowest = max(endings, key=lambda ending: ending.seconds)
    print(f"\n{table(endings)}\nslowest: {slowest.kind}:{slowest.number}, {slowest.seconds:.1f} s")
    return int(any(ending.wrong for ending in endings))


if __name__ == "__main__":
    sys.exit(main())
