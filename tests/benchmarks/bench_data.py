"""Measures how fast samples are read on one core and holds it against the bars: ``make bench-data``.

The platform's loader (`data.workers=0`: one thread) beside a bare loop that decodes the same bytes from memory into
batches, which is the limit, torch's DataLoader over a folder of images, webdataset's own pipeline and
mosaicml-streaming. All in one process bound to one core, turn by turn, each round in another order; every one hands out
batches of uint8 ``[n, 3, H, W]`` and integer labels, in an order that is shuffled. Seconds are the processor's, so that
whoever else uses the core does not count. What is compared is the median over rounds of the ratio within a round.
Shown without a bar: the bare loop that drops each picture, so that there never is a batch (see `readers.BareLoop`).
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from bench import at_least_seven
from cases import scratch
from one_core import about_this_machine, stay_on_one_core
from readers import CONTESTANTS, Case, Contestant, Missing, write_case
from turns import Ratio, ratio, time_rounds

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
    """How many times another's images/s the loader's are, and the least that it may be.

    Attributes:
        least: None where the figure is only shown.
        shown: the figure with its scatter.
    """

    case: str
    against: str
    value: float
    least: float | None
    shown: str

    @property
    def passed(self) -> bool:
        return self.least is None or self.value >= self.least

    def line(self) -> str:
        verdict = "    " if self.least is None else "PASS" if self.passed else "MISS"
        bound = "" if self.least is None else f">= {self.least:g}"
        return f"  {verdict}  times {self.against:<34} {self.shown:<24} {bound}"


def measure(case: Case, rounds: int) -> tuple[list[Bar], dict[str, float], Ratio, list[str]]:
    """Bars, images/s by contestant, the loader against itself, and why somebody does not take part."""
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
    # the loader is there twice: as in the cost of a step, its ratios are of the mean of the two
    both = [(one + other) / 2 for one, other in zip(seconds[OURS], seconds[f"{OURS} again"], strict=True)]
    compared = {**seconds, OURS: both}
    # a ratio of images/s is the other's seconds over ours
    bars = [
        Bar(case.name, name, (found := ratio(compared, name, OURS)).median, BARS.get(name), str(found))
        for name in contestants
        if not name.startswith(OURS)
    ]
    speeds = {name: case.batch / statistics.median(each) for name, each in seconds.items()}
    return bars, speeds, ratio(seconds, f"{OURS} again", OURS), absent


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how fast samples are read, and hold it against the bars.")
    parser.add_argument("--rounds", type=at_least_seven, default=15, help="paired rounds, at least 7")
    parser.add_argument("--strict", action="store_true", help="exit 1 where a bar is missed")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of data.txt and data.json")
    options = parser.parse_args()
    stay_on_one_core()
    torch.set_num_threads(1)
    keep_freed_memory()  # as training does
    began = time.perf_counter()
    about = about_this_machine(options.rounds)
    lines: list[str] = []
    record: dict[str, Any] = {"machine": about, "bars": [], "images_per_second": {}, "absent": []}

    def say(text: str) -> None:
        lines.append(text)
        print(text, flush=True)

    say("Reading on one core: images per processor second, and how many times others' the loader's are:")
    say("median of paired rounds (lowest-highest)")
    say(", ".join(f"{name} {value}" for name, value in about.items()))
    scatter = 0.0
    for case in CASES:
        bars, speeds, control, absent = measure(case, options.rounds)
        say(f"\n{case.name}: {case.meaning}, {case.count} images, batches of {case.batch}")
        say("  images/s: " + ", ".join(f"{name} {speed:,.0f}" for name, speed in speeds.items()))
        for each in bars:
            say(each.line())
        say(f"        A/A {control}")
        for reason in absent:
            say(f"        without {reason}")
        scatter = max(scatter, abs(control.median - 1))
        record["bars"] += [{**asdict(each), "passed": each.passed} for each in bars]
        record["images_per_second"][case.name] = speeds
        record["absent"] = absent
    if scatter > MOST_SCATTER:
        say(f"\nThe loader differed from itself by {scatter:.1%}: the machine was busy, and no verdict is worth much")
    judged = [bar for bar in record["bars"] if bar["least"] is not None]
    missed = sum(not bar["passed"] for bar in judged)
    say(f"\n{len(judged) - missed} of {len(judged)} bars passed, {time.perf_counter() - began:.0f} s")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "data.txt").write_text("\n".join(lines) + "\n")
    (options.out / "data.json").write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(1 if options.strict and missed else 0)


if __name__ == "__main__":
    main()
