"""Measures how fast samples are read on one core and compares it with the bars: ``make bench-data``.

The platform's loader (`data.workers=0`: one thread) beside a bare loop that decodes the same bytes from memory into
batches, which is the limit, torch's DataLoader over a folder of images, webdataset's own pipeline and
mosaicml-streaming. All in one process bound to one core, turn by turn, each round in another order; every one hands out
batches of uint8 ``[n, 3, H, W]`` and integer labels, in an order that is shuffled. Seconds are the processor's, so that
whoever else uses the core does not count. What is compared is the median over rounds of the ratio within a round, and
of that the median over several starts of the process, for where its memory lies makes some quicker than others.
Shown without a bar: the bare loop that drops each picture, so that there never is a batch (see `readers.BareLoop`).
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from bench import at_least_seven
from cases import scratch
from one_core import about_this_machine, stay_on_one_core
from readers import CONTESTANTS, Case, Contestant, Missing, write_case
from turns import ratio, time_rounds

from latentscale.training.memory import keep_freed_memory

HERE = Path(__file__).resolve().parent
CASES = [
    Case("png64", "PNG of 64x64", "png", 64, count=2048, batch=256, turn_batches=6),
    Case("jpeg256", "JPEG of 256x256, quality 90, 4:2:0", "jpg", 256, count=512, batch=32, turn_batches=16),
]
MOST_SCATTER = 0.05
OURS = "latentscale"
BARS = {"bare loop": 0.90, "DataLoader": 1.5, "webdataset": 1.0}


@dataclass
class Bar:
    """The ratio of the loader's images/s to another reader's, and its lower limit.

    Attributes:
        starts: the median over rounds in each start of the process.
        least: None where the figure is only shown.
    """

    case: str
    against: str
    starts: list[float]
    least: float | None

    @property
    def value(self) -> float:
        return statistics.median(self.starts)

    @property
    def passed(self) -> bool:
        return self.least is None or self.value >= self.least

    def line(self) -> str:
        verdict = "    " if self.least is None else "PASS" if self.passed else "MISS"
        bound = "" if self.least is None else f">= {self.least:g}"
        return f"  {verdict}  times {self.against:<34} {spread(self.starts):<24} {bound}".rstrip()


def spread(starts: Sequence[float]) -> str:
    """Median (lowest-highest)."""
    return f"{statistics.median(starts):.3f} ({min(starts):.3f}-{max(starts):.3f})"


@dataclass
class Measured:
    """A case in one process start.

    Attributes:
        ratios: the loader's images/s as a multiple of each other's, medians over rounds.
        control: the loader against itself.
        images_per_second: by contestant, medians over rounds.
        absent: why somebody does not take part.
    """

    ratios: dict[str, float]
    control: float
    images_per_second: dict[str, float]
    absent: list[str]


def measure(case: Case, rounds: int) -> Measured:
    """Measure all readers in turns."""
    with scratch() as folder:
        data = write_case(case, folder)
        contestants: dict[str, Contestant] = {}
        absent = []
        for name, make in CONTESTANTS.items():
            try:
                contestants[name] = make(case, data)
            except Missing as reason:
                absent.append(f"{name}: {reason}")
        seconds: Mapping[str, list[float]] = time_rounds(contestants, rounds, case.turn_batches)
    # the loader takes part twice, as a control: ratios use the mean of the two
    both = [(one + other) / 2 for one, other in zip(seconds[OURS], seconds[f"{OURS} again"], strict=True)]
    compared = {**seconds, OURS: both}
    return Measured(
        # a ratio of images/s is the other's seconds divided by ours
        {name: ratio(compared, name, OURS).median for name in contestants if not name.startswith(OURS)},
        ratio(seconds, f"{OURS} again", OURS).median,
        {name: case.batch / statistics.median(each) for name, each in seconds.items()},
        absent,
    )


def one_start(rounds: int) -> None:
    """Measure in this process and print the result as JSON."""
    stay_on_one_core()
    torch.set_num_threads(1)
    keep_freed_memory()  # as training does
    print(json.dumps({case.name: asdict(measure(case, rounds)) for case in CASES}))


def started(rounds: int) -> dict[str, Measured]:
    """Measure in a separate process."""
    command = [sys.executable, __file__, "--one-start", "--rounds", str(rounds)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {name: Measured(**found) for name, found in json.loads(finished.stdout.splitlines()[-1]).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how fast samples are read, and hold it against the bars.")
    parser.add_argument("--rounds", type=at_least_seven, default=7, help="paired rounds per start, at least 7")
    parser.add_argument("--starts", type=int, default=5, help="process starts, each with all rounds")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a bar is missed")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of data.txt and data.json")
    parser.add_argument("--one-start", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_start:
        one_start(options.rounds)
        return
    began = time.perf_counter()
    about = {**about_this_machine(options.rounds), "starts": options.starts}
    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)
        print(text, flush=True)

    say("Reading on one core: images per processor second, and how many times others' the loader's are:")
    say("of each start the median of paired rounds, and of those the median (lowest-highest)")
    say(", ".join(f"{name} {value}" for name, value in about.items()))
    found = []
    for number in range(options.starts):
        print(f"start {number + 1} of {options.starts}", file=sys.stderr, flush=True)
        found.append(started(options.rounds))
    judged: list[Bar] = []
    scatter = 0.0
    for case in CASES:
        starts = [each[case.name] for each in found]
        say(f"\n{case.name}: {case.meaning}, {case.count} images, batches of {case.batch}")
        speeds = {
            name: statistics.median(each.images_per_second[name] for each in starts)
            for name in starts[0].images_per_second
        }
        say("  images/s: " + ", ".join(f"{name} {speed:,.0f}" for name, speed in speeds.items()))
        for name in starts[0].ratios:
            judged.append(Bar(case.name, name, [each.ratios[name] for each in starts], BARS.get(name)))
            say(judged[-1].line())
        controls = [each.control for each in starts]
        say(f"        A/A {spread(controls)}")
        for reason in starts[0].absent:
            say(f"        without {reason}")
        scatter = max(scatter, *(abs(control - 1) for control in controls))
    if scatter > MOST_SCATTER:
        say(f"\nThe loader differed from itself by {scatter:.1%}: the machine was busy, and no verdict is worth much")
    held = [bar for bar in judged if bar.least is not None]
    missed = sum(not bar.passed for bar in held)
    say(f"\n{len(held) - missed} of {len(held)} bars passed, {time.perf_counter() - began:.0f} s")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "data.txt").write_text("\n".join(lines) + "\n")
    record = {
        "machine": about,
        "bars": [{**asdict(bar), "value": bar.value, "passed": bar.passed} for bar in judged],
        "starts": [{name: asdict(each) for name, each in start.items()} for start in found],
    }
    (options.out / "data.json").write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(1 if options.strict and missed else 0)


if __name__ == "__main__":
    main()
