"""Measures the cost per step of more processes, apart from their gradients: ``make bench-scaling``.

Groups of 1, 2 and 4 processes train through the platform's loop, each process behind a link of a known bandwidth, with
phases that sleep instead of computing (``scaling_process.py``). They take turns: one group is at work at a time, each
round begins with another one and goes there and back. Next to the platform's steps each group takes those of a loop
written by hand, which sleeps as long and sends the same gradients: what the platform adds is the difference within a
round. Figures are medians over rounds, and the two turns of a round say how far a thing differs from itself.
"""

import argparse
import json
import math
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from bench import HERE, at_least_seven, machine
from cases import scratch
from columns import aligned
from links import Place, links, loopback_places, why_no_links
from network_time import Link, ring_bytes, ring_seconds
from scaling_process import PHASES, REPORT_EVERY_STEPS, SleepingPVDGAN, configuration
from turns import rounds_of_turns
from worker_groups import WorkerGroup, stop, worker_groups

from latentscale.training.checks import plan_dry_run
from latentscale.training.method_building import network_sizes

PROCESSES = (1, 2, 4)
COMPUTE_SECONDS = 0.1
BITS_PER_SECOND = 1e8
COUNTED_STEPS = 3
FLOAT32_BYTES = 4
MOST_SHARE = 0.02
# of the step: increments that differ by less cannot be told apart
MOST_BEND_SHARE = 0.0025
MOST_SCATTER_SHARE = 0.01
BEYOND = "all beyond sleep and gradients"


@dataclass
class Measured:
    """The measurements of a group, in the order of rounds; each round has two turns.

    Attributes:
        step_seconds: of the platform's loop, ``[rounds][2]``.
        bare_seconds: of the loop written by hand, ``[rounds][2]``.
        reduce_seconds: of the gradients' all-reduces of a step alone, ``[rounds][2]``.
        own_cpu_seconds: of a process's cores, platform's loop − loop written by hand, mean over processes,
            ``[rounds][2]``.
        sent_bytes: that a process sent in a step, headers and all, ``[rounds][2]``; zeros without links of their own.
        elements: of each collective of a step of the platform, as torch's profiler saw them.
    """

    processes: int
    step_seconds: list[list[float]] = field(default_factory=list)
    bare_seconds: list[list[float]] = field(default_factory=list)
    reduce_seconds: list[list[float]] = field(default_factory=list)
    own_cpu_seconds: list[list[float]] = field(default_factory=list)
    sent_bytes: list[list[float]] = field(default_factory=list)
    elements: list[int] = field(default_factory=list)


@dataclass
class Row:
    """The figures of one number of processes.

    Attributes:
        gradient_bytes: that all phases' all-reduces of a step take in.
        other_bytes: that a step's collectives take in besides: the statistics.
        sent_bytes: that a process sent in a step, headers and all; 0 where that cannot be told.
        ring_bytes: that a ring all-reduce of all of them must send.
        ring_seconds: that the gradients need by the formula, None on a network of unknown bandwidth.
        reduce_seconds: that they need when nothing else is done.
        overhead_seconds: platform's step − step of the loop written by hand: the platform's own.
        lowest_seconds, highest_seconds: of a round.
        own_cpu_seconds: the same on a process's cores: what is not waiting, for others or for a core.
        beyond_seconds: platform's step − sleep − gradients (the formula's, else as measured): with all that any loop
            does, such as Adam.
        against_itself_seconds: second turn − first turn of the platform's steps.
    """

    processes: int
    step_seconds: float
    bare_seconds: float
    gradient_bytes: int
    other_bytes: int
    sent_bytes: float
    ring_bytes: float
    ring_seconds: float | None
    reduce_seconds: float
    overhead_seconds: float
    lowest_seconds: float
    highest_seconds: float
    own_cpu_seconds: float
    beyond_seconds: float
    against_itself_seconds: float


@dataclass
class Bar:
    """A figure and its limit, as shares of the step.

    Attributes:
        most: None where it is only shown.
        low, high: between which nine in ten values are where rounds are drawn anew from those measured; NaN where
            they were not.
    """

    name: str
    value: float
    most: float | None
    low: float = math.nan
    high: float = math.nan

    @property
    def verdict(self) -> str:
        return "not judged" if self.most is None else "PASS" if self.value <= self.most else "MISS"

    @property
    def spread(self) -> str:
        """The 90% interval."""
        return "" if math.isnan(self.low) else f"{self.low:+.2%} .. {self.high:+.2%}"

    @property
    def within_noise(self) -> bool:
        """Whether its limit lies within the interval of resampled rounds."""
        return self.most is not None and self.low <= self.most < self.high

    def line(self) -> str:
        bound = "" if self.most is None else f"<= {self.most:.2%}"
        return f"  {self.verdict:<10}  {self.name:<72} {self.value:+8.2%}   {self.spread:<18}   {bound}".rstrip()


def row(measured: Measured, gradient_elements: int, sleep_seconds: float, bytes_per_second: float | None) -> Row:
    """The figures of a group.

    Args:
        gradient_elements: parameters of all phases.
        sleep_seconds: of a step, all phases together.
        bytes_per_second: of a process's link, None where it is unknown.

    Raises:
        RuntimeError: the collectives that were counted do not hold the gradients.
    """
    rounds = [
        statistics.mean(step) - statistics.mean(bare)
        for step, bare in zip(measured.step_seconds, measured.bare_seconds, strict=True)
    ]
    step = middle(measured.step_seconds)
    other_elements = sum(measured.elements) - gradient_elements
    if measured.processes == 1:
        gradient_elements = other_elements = 0
    if other_elements < 0 or (measured.processes > 1) != bool(measured.elements):
        raise RuntimeError(f"{measured.processes} processes made collectives of {measured.elements} elements")
    gradient_bytes, other_bytes = FLOAT32_BYTES * gradient_elements, FLOAT32_BYTES * other_elements
    ring = None
    if bytes_per_second is not None:
        ring = ring_seconds(measured.processes, gradient_bytes, Link(bytes_per_second))
    reduce = middle(measured.reduce_seconds)
    return Row(
        processes=measured.processes,
        step_seconds=step,
        bare_seconds=middle(measured.bare_seconds),
        gradient_bytes=gradient_bytes,
        other_bytes=other_bytes,
        sent_bytes=middle(measured.sent_bytes),
        ring_bytes=ring_bytes(measured.processes, gradient_bytes + other_bytes),
        ring_seconds=ring,
        reduce_seconds=reduce,
        overhead_seconds=statistics.median(rounds),
        lowest_seconds=min(rounds),
        highest_seconds=max(rounds),
        own_cpu_seconds=middle(measured.own_cpu_seconds),
        beyond_seconds=step - sleep_seconds - (reduce if ring is None else ring),
        against_itself_seconds=statistics.median(second - first for first, second in measured.step_seconds),
    )


def middle(rounds: Sequence[Sequence[float]]) -> float:
    """Median over rounds of the mean within a round."""
    return statistics.median(statistics.mean(each) for each in rounds)


def bars(rows: Sequence[Row], cores: int, drawn: Sequence[Sequence[Row]] = ()) -> list[Bar]:
    """The share of each step that is the platform's own, and whether it grows faster than log₂ of the processes.

    By the clock, with all waiting, and by the time on a process's cores, which a machine of few cores leaves alone.

    Args:
        cores: of the machine. Processes that share them compute in turns, which bends the growth by the clock whatever
            is computed: it is judged where there is a core for each.
        drawn: the same rows from rounds drawn anew.
    """
    found = figures(rows, cores)
    values = list(zip(*([bar.value for bar in figures(each, cores)] for each in drawn), strict=True))
    for bar, others in zip(found, values, strict=False):
        twentieths = statistics.quantiles(others, n=20)
        bar.low, bar.high = twentieths[0], twentieths[-1]
    return found


def figures(rows: Sequence[Row], cores: int) -> list[Bar]:
    """See `bars`."""
    clock = [each.overhead_seconds for each in rows]
    own = [each.own_cpu_seconds for each in rows]
    share = any(each.processes > cores for each in rows)
    return [
        *bars_of("platform's own", clock, rows, None if share else MOST_BEND_SHARE),
        *bars_of("platform's own on its cores", own, rows, MOST_BEND_SHARE),
        *(
            Bar(f"{BEYOND}, {each.processes} processes / step", each.beyond_seconds / each.step_seconds, None)
            for each in rows
        ),
    ]


def bars_of(what: str, seconds: Sequence[float], rows: Sequence[Row], most_bend: float | None) -> list[Bar]:
    """Of one measure, in the order of rows, which begin with one process.

    Growth is held against the logarithm twice: no more than each doubling adding what one process costs by itself, and
    no doubling adding more than the one before.
    """
    found = [
        Bar(f"{what}, {each.processes} processes / step", own / each.step_seconds, MOST_SHARE)
        for own, each in zip(seconds, rows, strict=True)
    ]
    for own, each in list(zip(seconds, rows, strict=True))[1:]:
        beyond = own - (1 + math.log2(each.processes)) * seconds[0]
        found.append(
            Bar(f"{what}, {each.processes} processes - (1 + log2) x one's / step", beyond / each.step_seconds, 0)
        )
    per_doubling = [
        (later - earlier) / math.log2(more.processes / fewer.processes)
        for (earlier, later), (fewer, more) in zip(pairwise(seconds), pairwise(rows), strict=True)
    ]
    for (before, growth), (one, two) in zip(pairwise(per_doubling), pairwise(rows[1:]), strict=True):
        name = f"{what}, more growth from {one.processes} to {two.processes} than before / step"
        found.append(Bar(name, (growth - before) / two.step_seconds, most_bend))
    return found


def drawn_anew(found: Sequence[Measured], to_row: Callable[[Measured], Row], times: int = 1000) -> list[list[Row]]:
    """Rows from as many rounds, drawn with repetition; all groups' of the same rounds, which were measured together."""
    draws, rounds = random.Random(0), len(found[0].step_seconds)
    return [
        [to_row(of_rounds(each, chosen)) for each in found]
        for chosen in (draws.choices(range(rounds), k=rounds) for _ in range(times))
    ]


def of_rounds(measured: Measured, chosen: Sequence[int]) -> Measured:
    """The measurements of some rounds."""
    kept = {
        name: [value[number] for number in chosen]
        for name, value in vars(measured).items()
        if name not in ("processes", "elements")
    }
    return Measured(measured.processes, elements=measured.elements, **kept)


def tally(judged: Sequence[Bar]) -> str:
    """The number of bars that passed, as text."""
    verdicts = Counter(bar.verdict for bar in judged)
    text = f"{verdicts['PASS']} of {verdicts['PASS'] + verdicts['MISS']} bars passed"
    return text + (f", {verdicts['not judged']} not judged" if verdicts["not judged"] else "")


def remarks(rows: Sequence[Row], cores: int, judged: Sequence[Bar] = ()) -> list[str]:
    """How the number of cores and the load of the machine limit the verdicts."""
    found = [
        "What is beyond sleep and gradients (by the formula) holds what any loop does, such as Adam, the average of"
        " the weights and DDP's own: it is not the platform's alone, and not judged; with"
        f" {rows[-1].processes} processes {ms(rows[-1].beyond_seconds - rows[-1].overhead_seconds)} ms of"
        f" {ms(rows[-1].beyond_seconds)} ms are the loop's that is written by hand"
    ]
    if unsure := [bar.name for bar in judged if bar.within_noise]:
        found.append(
            "Rounds drawn anew fall on both sides of the bound, so that these verdicts are within noise: "
            + "; ".join(unsure)
        )
    processes = max(each.processes for each in rows)
    if processes > cores:
        found.append(
            f"{processes} processes share {cores} cores: what they compute at once then takes"
            f" {processes / cores:g} times as long, and each hop of a collective waits for a core; how growth bends by"
            " the clock is not judged"
        )
    scatter = max(abs(each.against_itself_seconds) / each.step_seconds for each in rows)
    if scatter > MOST_SCATTER_SHARE:
        found.append(
            f"A step differed from itself by {scatter:.1%}: the machine was busy, and no verdict is worth much"
        )
    return found


def measure(groups: list[WorkerGroup], rounds: int, steps: int) -> list[Measured]:
    """Measure the groups in turns, next to each other."""
    found = [Measured(len(each.workers)) for each in groups]
    for each in groups:  # first steps allocate
        slowest(each.all("train 3"), "seconds")
        slowest(each.all("bare 3"), "seconds")
    for order in rounds_of_turns([str(number) for number in range(len(groups))], rounds):
        for measured in found:
            for kept in (measured.step_seconds, measured.bare_seconds, measured.reduce_seconds):
                kept.append([])
            measured.own_cpu_seconds.append([])
            measured.sent_bytes.append([])
        for turn, number in enumerate(map(int, order)):
            there, measured = turn < len(groups), found[number]
            replies = {
                arm: groups[number].all(f"{arm} {steps}") for arm in (("bare", "train") if there else ("train", "bare"))
            }
            measured.bare_seconds[-1].append(slowest(replies["bare"], "seconds"))
            measured.step_seconds[-1].append(slowest(replies["train"], "seconds"))
            measured.sent_bytes[-1].append(slowest(replies["train"], "sent_bytes"))
            cores = {arm: statistics.mean(reply["cpu_seconds"] for reply in each) for arm, each in replies.items()}
            measured.own_cpu_seconds[-1].append(cores["train"] - cores["bare"])
            measured.reduce_seconds[-1].append(slowest(groups[number].all(f"reduce {steps}"), "seconds"))
    for measured, each in zip(found, groups, strict=True):
        measured.elements = elements_of_a_step([reply["elements"] for reply in each.all(f"count {COUNTED_STEPS}")])
    return found


def slowest(replies: Sequence[dict[str, Any]], what: str) -> float:
    """The largest of all processes' figures."""
    return float(max(reply[what] for reply in replies))


def elements_of_a_step(counted: Sequence[Sequence[int]]) -> list[int]:
    """Elements of each collective of a step, from those of several steps on every process; reports left out.

    Raises:
        RuntimeError: processes made different ones.
    """
    first = Counter(counted[0])
    if any(Counter(each) != first for each in counted[1:]):
        raise RuntimeError(f"processes made different collectives: {[dict(Counter(each)) for each in counted]}")
    return sorted((size for size, times in first.items() for _ in range(times // COUNTED_STEPS)), reverse=True)


def calibrate(groups: Sequence[WorkerGroup]) -> dict[str, float]:
    """Each process measures by how much its sleeps are too long; medians over processes."""
    replies = [reply for each in groups for reply in each.all("calibrate")]
    return {name: statistics.median(reply[name] for reply in replies) for name in replies[0]}


def table(rows: Sequence[Row], sleep_seconds: float) -> list[str]:
    """The figures as lines of text: ms and bytes per step."""
    times = [
        [
            "processes", "step", "by hand", "sleep", "gradients: formula", "alone", "step beyond sleep, gradients",
            "platform's own", "share", "of it CPU", "A/A",
        ]
    ]  # fmt: skip
    bytes_sent = [["processes", "gradients", "statistics", "a process must send", "counted on its link"]]
    for each in rows:
        times.append(
            [
                str(each.processes),
                ms(each.step_seconds),
                ms(each.bare_seconds),
                ms(sleep_seconds),
                "unknown" if each.ring_seconds is None else ms(each.ring_seconds),
                ms(each.reduce_seconds),
                ms(each.beyond_seconds),
                f"{ms(each.overhead_seconds)} ({ms(each.lowest_seconds)} - {ms(each.highest_seconds)})",
                f"{each.overhead_seconds / each.step_seconds:.2%}",
                ms(each.own_cpu_seconds),
                f"{1e3 * each.against_itself_seconds:+.2f}",
            ]
        )
        bytes_sent.append(
            [
                str(each.processes),
                f"{each.gradient_bytes:,}",
                f"{each.other_bytes:,}",
                f"{each.ring_bytes:,.0f}",
                f"{each.sent_bytes:,.0f}" if each.sent_bytes else "not counted",
            ]
        )
    return ["", "ms of a step", *aligned(times), "", "bytes of a step", *aligned(bytes_sent), ""]


def ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=at_least_seven, default=15, help="paired rounds, at least 7")
    parser.add_argument("--steps", type=int, default=REPORT_EVERY_STEPS, help="steps per turn")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a bar is missed")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of scaling.txt and scaling.json")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    began = time.perf_counter()
    about = machine(options.rounds)
    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)
        print(text, flush=True)

    say("Cost of more processes: compute is a sleep, medians of paired rounds (lowest - highest), ms a step")
    say(
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in about.items())
        + f", {options.steps} steps a turn"
    )
    obstacle = why_no_links()
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        places: list[Place] = (
            loopback_places(max(PROCESSES)) if obstacle else stack.enter_context(links(max(PROCESSES), BITS_PER_SECOND))
        )
        if obstacle:
            say(f"{obstacle}: measured on the loopback as it is")
        else:
            say(f"every process in a network namespace behind a link of {BITS_PER_SECOND / 1e6:.0f} Mbit/s (tbf)")
        started = stack.enter_context(worker_groups(places, PROCESSES, folder, COMPUTE_SECONDS))
        overshoot = calibrate(started)
        say(
            f"a sleep of {1e3 * COMPUTE_SECONDS / PHASES:.0f} ms is"
            f" {1e6 * overshoot['plain_overshoot_seconds']:.0f} us too long, calibrated"
            f" {1e6 * overshoot['left_overshoot_seconds']:.0f} us; a step has {PHASES}"
        )
        found = measure(started, options.rounds, options.steps)
        stop(started)
    sizes = network_sizes(plan_dry_run(configuration(Path("unused"), 0), SleepingPVDGAN))
    bytes_per_second = None if obstacle else BITS_PER_SECOND / 8

    def to_row(measured: Measured) -> Row:
        return row(measured, sum(sizes.values()), COMPUTE_SECONDS, bytes_per_second)

    rows = [to_row(each) for each in found]
    for line in table(rows, COMPUTE_SECONDS):
        say(line)
    judged = bars(rows, about["cores"], drawn_anew(found, to_row))
    say("shares of the step, and between what nine in ten are where rounds are drawn anew")
    for bar in judged:
        say(bar.line())
    for remark in remarks(rows, about["cores"], judged):
        say(remark)
    missed = any(bar.verdict == "MISS" for bar in judged)
    say(f"{tally(judged)}, {time.perf_counter() - began:.0f} s")

    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "scaling.txt").write_text("\n".join(lines) + "\n")
    record = {
        "machine": about,
        "network": {"bits_per_second": None if obstacle else BITS_PER_SECOND, "why_not_slowed": obstacle},
        "sleep": {"seconds_a_step": COMPUTE_SECONDS, **overshoot},
        "parameters": sizes,
        "rows": [asdict(each) for each in rows],
        "bars": [{**asdict(bar), "verdict": bar.verdict} for bar in judged],
        "measured": [asdict(each) for each in found],
    }
    (options.out / "scaling.json").write_text(json.dumps(record, indent=2) + "\n")
    sys.exit(1 if options.strict and missed else 0)


def _end(number: int, frame: Any) -> NoReturn:
    # an exception, so that processes and namespaces are removed
    raise SystemExit(128 + number)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print(f"interrupted: nothing was kept (process {os.getpid()})", file=sys.stderr)
        sys.exit(130)
