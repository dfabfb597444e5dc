"""Measures the cost of a step and compares it with the bars: ``make bench``.

Loops are timed beside each other in one process, turn by turn, each round in another order; what is compared is the
median over rounds of the ratio within a round. The platform's PVDGAN is there twice: its ratios are of the
mean of the two, and the A/A ratio of one to the other says what a single loop scatters by. Two processes are timed with
and without the statistics' all-reduce in one run.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from cases import CASES, Case, bare_loop, platform_loop, scratch
from turns import Contestant, Ratio, ratio, time_rounds

from latentscale.data.memory_cache import MemoryCachedReader
from latentscale.methods.registry import METHODS
from latentscale.training.loop import train

HERE = Path(__file__).resolve().parent
LAUNCHER = HERE.parents[1] / "launchers" / "accelerate" / "cpu.yaml"
LEAST_ROUNDS = 7
LEAST_STEP_SECONDS = 0.3
FIRST_BATCH = 48
MOST_SCATTER = 0.02
WAITING_STEPS = {"digits8": 400, "images32": 100, "images32_decoded": 100}


@dataclass
class Bar:
    """A figure and its limit.

    Attributes:
        shown: the figure in words, with its scatter.
        control: the A/A figure measured beside it in words, empty where there is none.
        against_itself: by what part the A/A figure is off.
    """

    case: str
    name: str
    value: float
    most: float
    shown: str
    control: str = ""
    against_itself: float = 0.0

    @property
    def passed(self) -> bool:
        return self.value <= self.most

    def line(self) -> str:
        verdict = "PASS" if self.passed else "MISS"
        control = f"   A/A {self.control}" if self.control else ""
        return f"  {verdict}  {self.name:<46} {self.shown:<22} <= {self.most:<5g}{control}"


def step_bars(case: Case, rounds: int) -> tuple[list[Bar], dict[str, float]]:
    """Ratios of steps within one process.

    Returns:
        the bars, and seconds a step by loop.
    """
    with scratch() as folder:
        contestants = {
            "pvdgan": Contestant(platform_loop(case, "pvdgan", folder, "pvdgan")),
            "bare pvdgan": Contestant(bare_loop(case, folder)),
            "pvdgan again": Contestant(platform_loop(case, "pvdgan", folder, "again")),
            "dlsgan": Contestant(platform_loop(case, "dlsgan", folder, "dlsgan")),
            "vanilla": Contestant(platform_loop(case, "vanilla", folder, "vanilla")),
        }
        seconds = time_rounds(contestants, rounds, case.steps)
        for contestant in contestants.values():
            contestant.close()
    control = ratio(seconds, "pvdgan again", "pvdgan")
    both = [(one + other) / 2 for one, other in zip(seconds["pvdgan"], seconds["pvdgan again"], strict=True)]
    compared = {**seconds, "pvdgan": both}

    def bar(name: str, one: str, other: str, most: float) -> Bar:
        found = ratio(compared, one, other)
        return Bar(case.name, name, found.median, most, str(found), str(control), control.median - 1)

    bars = [
        bar("PVDGAN step / DLSGAN step", "pvdgan", "dlsgan", 1.05),
        bar("DLSGAN step / vanilla step", "dlsgan", "vanilla", 1.10),
        bar("platform PVDGAN step / hand-written loop", "pvdgan", "bare pvdgan", 1.05),
    ]
    return bars, {name: statistics.median(each) for name, each in seconds.items()}


def waiting_bar(case: Case) -> Bar:
    """The share of a run's time that the loop waits for data, from the run's own reports."""
    steps = WAITING_STEPS[case.name]
    fits = MemoryCachedReader.fits if case.remembered else lambda count, shape: False
    with scratch() as folder, mock.patch.object(MemoryCachedReader, "fits", staticmethod(fits)):
        config = case.config(
            "pvdgan", folder, run__dir=folder / "run", training__steps=steps, training__report_every_steps=steps // 4
        )
        train(config, METHODS["pvdgan"])
        records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    # the first report includes the start
    reports = [record for record in records if "seconds/total" in record][1:]
    shares = [record["seconds/data"] / record["seconds/total"] for record in reports]
    share = sum(record["seconds/data"] for record in reports) / sum(record["seconds/total"] for record in reports)
    shown = f"{share:.2%} ({min(shares):.2%}-{max(shares):.2%})"
    return Bar(case.name, "waiting for data / time", share, 0.02, shown)


def two_processes(rounds: int, batch: int) -> dict[str, Any]:
    """The measurements of ``statistics_cost.py``.

    Raises:
        RuntimeError: the run failed.
    """
    with scratch() as folder:
        command = [
            str(Path(sys.executable).with_name("accelerate")), "launch", "--config_file", str(LAUNCHER),
            str(HERE / "statistics_cost.py"),
            "--folder", str(folder), "--rounds", str(rounds), "--batch", str(batch),
        ]  # fmt: skip
        environment = {"GLOO_SOCKET_IFNAME": "lo", **os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    if finished.returncode:
        raise RuntimeError(f"the run of two processes failed:\n{finished.stderr[-4000:]}")
    results: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return results


def collective_bar(case: Case, rounds: int) -> tuple[list[Bar], dict[str, float]]:
    """What the statistics' all-reduce adds to a step of two processes, of a batch that takes as long as it must."""
    batch = FIRST_BATCH
    results = two_processes(rounds, batch)
    while results["step_seconds"]["with"] < LEAST_STEP_SECONDS:
        batch *= 2
        results = two_processes(rounds, batch)

    def percent(found: Ratio) -> str:
        return f"{found.median - 1:+.2%} ({min(found.rounds) - 1:+.2%} - {max(found.rounds) - 1:+.2%})"

    added, again = Ratio(results["added"]), Ratio(results["again"])
    bar = Bar(
        case.name,
        f"time the statistics' all-reduce adds, batch {batch}",
        added.median - 1,
        0.02,
        percent(added),
        percent(again),
        again.median - 1,
    )
    return [bar], results["step_seconds"]


def machine(rounds: int) -> dict[str, Any]:
    """The machine that the figures depend on, without names."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "architecture": platform.machine(),
        "load_average": round(os.getloadavg()[0], 2),
        "rounds": rounds,
    }


def at_least_seven(text: str) -> int:
    rounds = int(text)
    if rounds < LEAST_ROUNDS:
        raise argparse.ArgumentTypeError(f"a median takes at least {LEAST_ROUNDS} rounds")
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a step costs, and hold it against the bars.")
    parser.add_argument("--rounds", type=at_least_seven, default=31, help="paired rounds, at least 7")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a bar is missed")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of cost.txt and cost.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    about = machine(options.rounds)
    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)
        print(text, flush=True)

    def show(case: Case, bars: list[Bar], seconds: dict[str, float]) -> None:
        say(f"\n{case.name}: {case.meaning}")
        if seconds:
            say("  ms a step: " + ", ".join(f"{name} {1000 * value:.1f}" for name, value in seconds.items()))
        for each in bars:
            say(each.line())

    say("Cost of a step: median of paired rounds (lowest-highest), most that is allowed, the same loop against itself")
    say(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in about.items()))
    every_bar: list[Bar] = []
    every_second: dict[str, dict[str, float]] = {}
    stages: list[tuple[Case, Callable[[], tuple[list[Bar], dict[str, float]]]]] = [
        *(
            (CASES[name], lambda case=CASES[name]: one_process(case, options.rounds))
            for name in ("digits8", "images32")
        ),
        (CASES["images32_decoded"], lambda: ([waiting_bar(CASES["images32_decoded"])], {})),
        (CASES["images32_two_processes"], lambda: collective_bar(CASES["images32_two_processes"], options.rounds)),
    ]
    for case, measure in stages:
        bars, seconds = measure()
        show(case, bars, seconds)
        every_bar += bars
        every_second[case.name] = seconds
    missed = sum(not each.passed for each in every_bar)
    scatter = max(abs(each.against_itself) for each in every_bar)
    if scatter > MOST_SCATTER:
        say(f"\nA loop differed from itself by {scatter:.1%}: the machine was busy, and no verdict is worth much")
    say(f"\n{len(every_bar) - missed} of {len(every_bar)} bars passed, {time.perf_counter() - began:.0f} s")

    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "cost.txt").write_text("\n".join(lines) + "\n")
    record = {
        "machine": about,
        "bars": [{**asdict(each), "passed": each.passed} for each in every_bar],
        "step_seconds": every_second,
    }
    (options.out / "cost.json").write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(1 if options.strict and missed else 0)


def one_process(case: Case, rounds: int) -> tuple[list[Bar], dict[str, float]]:
    """All bars of one process."""
    bars, seconds = step_bars(case, rounds)
    return [*bars, waiting_bar(case)], seconds


if __name__ == "__main__":
    main()
