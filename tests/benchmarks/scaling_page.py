"""Writes launchers/SCALING.md: what a step of the 256² presets sends, and what that takes on 8, 64 and 512 GPUs.

Sizes come from the presets, the platform's own cost from ``results/scaling.json``, bandwidths from the makers. Another
compute time: ``python tests/benchmarks/scaling_page.py --compute-seconds 0.1``.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from pathlib import Path
from textwrap import wrap
from typing import Any

import torch
from bench_scaling import Bar, Row, remarks, tally
from cases import PRESETS
from network_time import (
    BUCKET_BYTES,
    FIRST_BUCKET_BYTES,
    Link,
    buckets,
    exposed_seconds,
    ring_bytes,
    ring_seconds,
    tree_seconds,
    two_level_seconds,
)

from latentscale.config import Config, load_config
from latentscale.distributed.statistics import FusedStatistics
from latentscale.distributed.streams import divisors
from latentscale.errors import UserError
from latentscale.latents.priors import make_prior
from latentscale.methods.base import Method
from latentscale.methods.registry import METHODS
from latentscale.training.checks import plan_dry_run
from latentscale.training.method_building import network_sizes
from latentscale.training.plan import ModelPlan

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "launchers" / "SCALING.md"
MEASURED = ROOT / "tests" / "benchmarks" / "results" / "scaling.json"
SHOWN = (("pvdgan", "afhq256"), ("dlsgan", "ffhq256"), ("cgpgan", "afhq256_cgpgan"), ("invgan", "ffhq256"))
GPUS = (8, 64, 512)
GPUS_A_NODE = 8
FLOAT32_BYTES = 4
COMPUTE_SECONDS = 0.2
# backward takes about twice as long as forward
BACKWARD_SHARE = 2 / 3


@dataclass(frozen=True)
class Fabric:
    """A published link.

    Attributes:
        link: of one GPU, one direction; latencies are our assumptions, of the usual order.
        meaning: how the bandwidth follows from the published figure.
    """

    name: str
    link: Link
    meaning: str
    source: str


NVLINK = Fabric(
    "NVLink 4",
    Link(450e9, 3e-6),
    "900 GB/s a GPU over both directions: 450 GB/s each way",
    "NVIDIA H100 Tensor Core GPU data sheet, interconnect of the SXM form",
)
BETWEEN = (
    Fabric(
        "InfiniBand NDR",
        Link(400e9 / 8, 5e-6),
        "400 Gb/s a port, a port for every GPU: 50 GB/s each way",
        "NVIDIA ConnectX-7 data sheet; DGX H100 data sheet, eight ports for eight GPUs",
    ),
    Fabric(
        "100 GbE",
        Link(100e9 / 8 / GPUS_A_NODE, 30e-6),
        f"100 Gb/s a port, one for the {GPUS_A_NODE} GPUs of a node: {100 / 8 / GPUS_A_NODE:.2f} GB/s a GPU",
        "IEEE 802.3ba, the line rate",
    ),
    Fabric(
        "25 GbE",
        Link(25e9 / 8 / GPUS_A_NODE, 30e-6),
        f"25 Gb/s a port, one for the {GPUS_A_NODE} GPUs of a node: {25 / 8 / GPUS_A_NODE:.2f} GB/s a GPU",
        "IEEE 802.3by, the line rate",
    ),
)


@dataclass
class Traffic:
    """What a step of a preset hands to all-reduces.

    Attributes:
        parameters: by network.
        phases: bytes of each bucket of each phase's gradients, in the order of sending; the last phase's first bucket
            begins with the statistics.
        statistics_bytes: of their vector.
        prepared_bytes: of the means that the method needs before its first phase, 0 without.
        batch: published, images.
        streams: of the preset.
        most_streams: into which that batch can be cut, which is the most processes that can take its steps.
    """

    method: str
    preset: str
    parameters: dict[str, int]
    phases: dict[str, list[int]]
    statistics_bytes: int
    prepared_bytes: int
    batch: int
    streams: int
    most_streams: int

    @property
    def name(self) -> str:
        return f"{self.method}, {self.preset}"

    @property
    def carried_bytes(self) -> int:
        """Gradients and statistics."""
        return sum(map(sum, self.phases.values()))

    @property
    def least_images(self) -> int:
        """Of a stream, and so of a GPU."""
        return self.batch // self.most_streams


def planned(method: str, preset: str) -> ModelPlan:
    """A preset as it is published, without its data."""
    kind = METHODS[method]
    return plan_dry_run(load_config(kind.Settings, method, {}, [f"preset={preset}"], PRESETS), kind)


def traffic(method: str, preset: str) -> Traffic:
    """Read off a preset's networks, which are built without memory."""
    plan = planned(method, preset)
    config, kind = plan.config, plan.method
    built = without_memory(plan)
    with torch.device("meta"):
        vector = FusedStatistics(built.statistics, torch.device("meta"), torch.float32).buffer
    means = sum(plan.spec.categories) + 1 if kind.prepare is not Method.prepare else 0
    # backward begins with the seat of the statistics, and then the last layer
    sizes = {
        phase.name: [FLOAT32_BYTES * each.numel() for each in reversed(list(phase.parameters()))]
        for phase in built.phases
    }
    sizes[built.phases[-1].name].insert(0, FLOAT32_BYTES * vector.numel())
    return Traffic(
        method,
        preset,
        network_sizes(plan),
        {name: buckets(each) for name, each in sizes.items()},
        FLOAT32_BYTES * vector.numel(),
        FLOAT32_BYTES * means,
        config.training.batch,
        plan.steps.streams,
        most_streams(config, kind),
    )


def without_memory(plan: ModelPlan) -> Method:
    """The method with its networks and phases on torch's meta device."""
    config, kind = plan.config, plan.method
    with torch.device("meta"):
        networks = kind.build_networks(config.method, config.network, plan.spec)
        return kind(config.method, networks, make_prior(config.latent.law, config.latent.quantile), plan.spec)


def most_streams(config: Config, kind: type[Method]) -> int:
    """Into how many streams the batch can be cut, at most, before the method refuses."""
    batch = config.training.batch
    for streams in reversed(divisors(batch)):
        try:
            kind.validate(config.method, config.latent.law, batch // streams)
        except UserError:
            continue
        return streams
    raise ValueError(f"{kind.name} takes no batch of {batch}")


@dataclass
class Step:
    """A step's time on so many GPUs.

    Attributes:
        network_seconds: that the all-reduces of the gradients take.
        exposed_seconds: of these, what is left after backward.
        own_seconds: the platform's, extrapolated.
    """

    compute_seconds: float
    network_seconds: float
    exposed_seconds: float
    own_seconds: float

    @property
    def hidden_share(self) -> float:
        return 1 - self.exposed_seconds / self.network_seconds

    @property
    def efficiency(self) -> float:
        """Compute / step."""
        return self.compute_seconds / (self.compute_seconds + self.exposed_seconds + self.own_seconds)


def step(sent: Traffic, gpus: int, between: Fabric, compute_seconds: float, own_seconds: float) -> Step:
    """A step whose phases take the compute time in equal parts."""

    def seconds_of(size: int) -> float:
        return two_level_seconds(gpus, GPUS_A_NODE, size, NVLINK.link, between.link)

    backward = BACKWARD_SHARE * compute_seconds / len(sent.phases)
    return Step(
        compute_seconds,
        sum(seconds_of(size) for sizes in sent.phases.values() for size in sizes),
        sum(exposed_seconds(sizes, backward, seconds_of) for sizes in sent.phases.values()),
        own_seconds,
    )


def fit(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Least squares a + b log₂ N through the platform's own seconds; b is never taken below 0."""
    doublings = [log2(row["processes"]) for row in rows]
    slope, start = statistics.linear_regression(doublings, [row["overhead_seconds"] for row in rows])
    if slope < 0:
        return statistics.mean(row["overhead_seconds"] for row in rows), 0.0
    return start, slope


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.1f}" if seconds >= 1e-4 else f"{1e3 * seconds:.3f}"


def megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def paragraph(text: str) -> list[str]:
    """Wrapped as the other pages are, and an empty line."""
    return [*wrap(text, 118, break_long_words=False, break_on_hyphens=False), ""]


def render(measured: dict[str, Any], compute_seconds: float = COMPUTE_SECONDS) -> str:
    """The page.

    Args:
        measured: what ``scaling.json`` holds.
        compute_seconds: of a step on one GPU, all phases.
    """
    presets = [traffic(*each) for each in SHOWN]
    lines = [
        "# What a step sends, and what that takes on 8, 64 and 512 GPUs",
        "",
        *paragraph(
            "Written by `make bench-scaling`, from the presets, from makers' figures and from [what was"
            " measured](../tests/benchmarks/results/scaling.txt) on CPU processes; a test computes it anew."
            " **Nothing here was measured on a GPU**: it is what the bytes and the published bandwidths say, and"
            " real networks reach less than those."
        ),
        *bytes_of_a_step(presets),
        *formulas(),
        *time_of_a_step(presets, measured, compute_seconds),
        *published_batches(presets),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def bytes_of_a_step(presets: Sequence[Traffic]) -> list[str]:
    first = presets[0]
    order = "; ".join(
        f"{name} {', '.join(f'{size / 1e6:.2f}' for size in sizes)}" for name, sizes in first.phases.items()
    )
    return [
        "## Bytes of a step",
        "",
        *paragraph(
            "Under DDP a step makes one all-reduce of every phase's gradients, in float32 for both `fp32` and `bf16`,"
            f" cut into buckets (the first of {FIRST_BUCKET_BYTES // 2**20} MiB, then of {BUCKET_BYTES // 2**20}"
            " MiB each, or more where a layer is larger). The first bucket of the last phase also carries the"
            " statistics: a vector of the stop flag, the news flag and each statistic's count and sums. CGPGAN"
            " reduces the means of its reals' labels besides,"
            " before its first phase. Nothing else crosses the network in every step: a"
            " [test](../tests/distributed/test_collectives.py) counts the collectives with torch's profiler, and"
            " `make bench-scaling` the bytes on the links. DeepSpeed sends the same gradients and the statistics by"
            " themselves, at ZeRO 1 and 2 also the weights of each process's part and two numbers for the norm."
        ),
        *table(
            ("method, preset", "parameters", "gradients", "buckets", "statistics", "before the phases"),
            [
                (
                    each.name,
                    ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in each.parameters.items()),
                    ", ".join(f"{name} {megabytes(sum(sizes))}" for name, sizes in each.phases.items()),
                    ", ".join(str(len(sizes)) for sizes in each.phases.values()),
                    f"{each.statistics_bytes:,} B",
                    f"{each.prepared_bytes} B" if each.prepared_bytes else "none",
                )
                for each in presets
            ],
        ),
        "",
        *paragraph(f"Buckets of {first.name} in MB, in the order of sending: {order}."),
    ]


def formulas() -> list[str]:
    fastest = BETWEEN[0]
    return [
        "## Formulas",
        "",
        "B: bytes of a bucket. N: GPUs. β: bytes a second that one GPU sends, one direction. α: seconds of a message.",
        "",
        "- ring: `2 (N − 1)/N · B/β + 2 (N − 1) α`",
        "- tree (two of them, each for half of B): `2 (N − 1)/N · B/β + 2 ⌈log₂ N⌉ α`",
        f"- m nodes of g = {GPUS_A_NODE}: a ring's halves within each node, between nodes a tree for each GPU's part:",
        "  `2 (g − 1)/g · B/β₁ + 2 (g − 1) α₁ + 2 (m − 1)/m · (B/g)/β₂ + 2 ⌈log₂ m⌉ α₂`",
        "- left after backward: buckets go one after the other, each when backward has filled it; the last one is",
        "  filled by the first layers, when nothing is left to hide under",
        "",
        *table(
            ("link", "one direction, one GPU", "α, assumed", "source of the bandwidth"),
            [
                (each.name, each.meaning, f"{1e6 * each.link.latency_seconds:.0f} µs", each.source)
                for each in (NVLINK, *BETWEEN)
            ],
        ),
        "",
        f"One all-reduce of {BUCKET_BYTES // 2**20} MiB between single GPUs on {fastest.name}, ring against tree, ms:",
        "",
        *table(
            ("GPUs", "sent by each", "ring", "tree"),
            [
                (
                    str(gpus),
                    megabytes(ring_bytes(gpus, BUCKET_BYTES)),
                    milliseconds(ring_seconds(gpus, BUCKET_BYTES, fastest.link)),
                    milliseconds(tree_seconds(gpus, BUCKET_BYTES, fastest.link)),
                )
                for gpus in GPUS
            ],
        ),
        "",
    ]


def time_of_a_step(presets: Sequence[Traffic], measured: dict[str, Any], compute_seconds: float) -> list[str]:
    start, slope = fit(measured["rows"])
    counts = ", ".join(str(row["processes"]) for row in measured["rows"])
    cores = measured["machine"]["cores"]
    return [
        "## Time of a step",
        "",
        *paragraph(
            f"For {milliseconds(compute_seconds)} ms of compute a step on each GPU, in equal parts for the phases,"
            f" of which backward takes {BACKWARD_SHARE:.0%}. **That is an assumption, to be replaced by your own**:"
            " `python tests/benchmarks/scaling_page.py --compute-seconds 0.1` prints this page for another one, and"
            " it is `training.batch` / `images_per_second` of your run on one GPU. All GPUs of a node are joined by"
            " NVLink; a step is compute + what is left of the network + the platform's own; efficiency is compute /"
            " step."
        ),
        *table(
            ("method, preset", "GPUs", "between nodes", "network ms", "hidden", "left ms", "own ms", "efficiency"),
            [
                (
                    each.name,
                    str(gpus),
                    "none: one node" if gpus <= GPUS_A_NODE else fabric.name,
                    milliseconds(found.network_seconds),
                    f"{found.hidden_share:.0%}",
                    milliseconds(found.exposed_seconds),
                    milliseconds(found.own_seconds),
                    f"{found.efficiency:.1%}",
                )
                for each in presets
                for gpus in GPUS
                for fabric in (BETWEEN[:1] if gpus <= GPUS_A_NODE else BETWEEN)
                for found in [step(each, gpus, fabric, compute_seconds, start + slope * log2(gpus))]
            ],
        ),
        "",
        *paragraph(
            f"The platform's own part is a + b log₂ N, a = {1e3 * start:.2f} ms and b = {1e3 * slope:.2f} ms, fitted"
            f" to what was measured with {counts} processes that share {cores} CPU cores, beyond a loop written by"
            " hand. What the statistics cost is in it: they are packed before the last backward pass, and travel with"
            " its gradients."
            " On a GPU the host's part is launched ahead of the device, and mostly hidden; so this is the larger"
            " guess."
        ),
        *how_sure(measured),
    ]


def how_sure(measured: dict[str, Any]) -> list[str]:
    """What was judged of that measurement, and on which machine."""
    bars = [Bar(**{name: bar[name] for name in ("name", "value", "most", "low", "high")}) for bar in measured["bars"]]
    rows = [
        (
            bar.name,
            f"{bar.value:+.2%}",
            bar.spread,
            "" if bar.most is None else f"≤ {bar.most:.2%}",
            "**MISS**" if bar.verdict == "MISS" else bar.verdict,
        )
        for bar in bars
    ]
    machine = measured["machine"]
    rows_measured = [Row(**row) for row in measured["rows"]]
    notes = " ".join(f"{note}." for note in remarks(rows_measured, machine["cores"], bars))
    return [
        *paragraph(
            f"How that measurement stood to its bars ({tally(bars)}); the load average before it was"
            f" {machine['load_average']:g} on {machine['cores']} cores:"
        ),
        *table(("bar, shares of the step", "measured", "nine in ten", "most", "verdict"), rows),
        "",
        *paragraph(
            f"{notes} The platform's own in the table of times is fitted to the first bars' figures, whatever their"
            " verdict; on its cores is what is left of them without waiting, for others or for a core."
        ),
    ]


def published_batches(presets: Sequence[Traffic]) -> list[str]:
    first = presets[0]
    return [
        "## What the published batch allows",
        "",
        *paragraph(
            "A batch is cut into streams, and processes × accumulation must divide them. The published batches are"
            " small: **more GPUs than streams cannot take the published steps**. A preset's own"
            " `distributed.streams` may be lower than the most that the method takes, and is part of the run."
        ),
        *table(
            (
                "method, preset",
                "batch",
                "streams of the preset",
                "least images a stream",
                "most streams = GPUs",
                *(f"least batch on {gpus} GPUs" for gpus in GPUS),
            ),
            [
                (
                    each.name,
                    str(each.batch),
                    str(each.streams),
                    str(each.least_images),
                    str(each.most_streams),
                    *(str(each.least_images * gpus) for gpus in GPUS),
                )
                for each in presets
            ],
        ),
        "",
        *paragraph(
            f"{first.name} in batches of {first.batch} runs on {first.most_streams} GPUs at most, with"
            f" {first.least_images} images each, which leaves a GPU mostly idle: the compute of a step shrinks with"
            " its images, the gradients do not. Beyond that the batch must grow with the GPUs (weak scaling, what"
            " the table of times is for); the last columns are the least batches, one stream a GPU. A larger batch"
            " is another experiment: fewer steps for the same images, while learning rate, penalties and decays are"
            " published for the published batch alone, and what quality it reaches has not been measured here."
            f" Where the published result is wanted, use up to {first.most_streams} GPUs for a run, and the others"
            " for other seeds and settings."
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compute-seconds", type=float, help="print the page for this compute time of a step instead")
    options = parser.parse_args()
    measured = json.loads(MEASURED.read_text())
    if options.compute_seconds is not None:
        print(render(measured, options.compute_seconds))
        return
    PAGE.write_text(render(measured))
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
