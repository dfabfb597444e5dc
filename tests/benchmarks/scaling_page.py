"""Writes launchers/SCALING.md: what a step of the 256² presets sends, and how long it takes on 8, 64 and 512 GPUs.

Sizes come from the presets, the platform's overhead from ``results/scaling.json``, bandwidths from the vendors. For
another compute time: ``python tests/benchmarks/scaling_page.py --compute-seconds 0.1``.
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
GPUS_PER_NODE = 8
FLOAT32_BYTES = 4
COMPUTE_SECONDS = 0.2
# backward takes about twice as long as forward
BACKWARD_SHARE = 2 / 3


@dataclass(frozen=True)
class Fabric:
    """A published link.

    Attributes:
        link: of one GPU, in one direction; latencies are assumptions of the usual order of magnitude.
        meaning: how the bandwidth follows from the published figure.
    """

    name: str
    link: Link
    meaning: str
    source: str


NVLINK = Fabric(
    "NVLink 4",
    Link(450e9, 3e-6),
    "900 GB/s per GPU over both directions: 450 GB/s each way",
    "NVIDIA H100 Tensor Core GPU data sheet, interconnect of the SXM form",
)
BETWEEN = (
    Fabric(
        "InfiniBand NDR",
        Link(400e9 / 8, 5e-6),
        "400 Gb/s per port, one port per GPU: 50 GB/s each way",
        "NVIDIA ConnectX-7 data sheet; DGX H100 data sheet, eight ports for eight GPUs",
    ),
    Fabric(
        "100 GbE",
        Link(100e9 / 8 / GPUS_PER_NODE, 30e-6),
        f"100 Gb/s per port, one port for {GPUS_PER_NODE} GPUs of a node: {100 / 8 / GPUS_PER_NODE:.2f} GB/s per GPU",
        "IEEE 802.3ba, the line rate",
    ),
    Fabric(
        "25 GbE",
        Link(25e9 / 8 / GPUS_PER_NODE, 30e-6),
        f"25 Gb/s per port, one port for {GPUS_PER_NODE} GPUs of a node: {25 / 8 / GPUS_PER_NODE:.2f} GB/s per GPU",
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
        statistics_bytes: size of the vector of statistics.
        prepared_bytes: size of the means that the method needs before its first phase; 0 without.
        batch: the published batch, in images.
        streams: number of streams of the preset.
        most_streams: largest number of streams for that batch, and so of processes that can take its steps.
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
        """Bytes of gradients and statistics."""
        return sum(map(sum, self.phases.values()))

    @property
    def least_images(self) -> int:
        """Smallest number of images per stream, and so per GPU."""
        return self.batch // self.most_streams


def planned(method: str, preset: str) -> ModelPlan:
    """A preset as it is published, without its data."""
    kind = METHODS[method]
    return plan_dry_run(load_config(kind.Settings, method, {}, [f"preset={preset}"], PRESETS), kind)


def traffic(method: str, preset: str) -> Traffic:
    """The traffic of a preset, from its networks, which are built without allocating memory."""
    plan = planned(method, preset)
    config, kind = plan.config, plan.method
    built = without_memory(plan)
    with torch.device("meta"):
        vector = FusedStatistics(built.statistics, torch.device("meta"), torch.float32).buffer
    means = sum(plan.spec.categories) + 1 if kind.prepare is not Method.prepare else 0
    # backward begins with the carrier of the statistics, then the last layer
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
    """The largest number of streams that the method accepts for its batch."""
    batch = config.training.batch
    for streams in reversed(divisors(batch)):
        try:
            kind.validate(config.method, config.latent.law, batch // streams)
        except UserError:
            continue
        return streams
    raise ValueError(f"{kind.name} does not accept a batch of {batch}")


@dataclass
class Step:
    """The time of a step on a number of GPUs.

    Attributes:
        network_seconds: time of the all-reduces of the gradients.
        exposed_seconds: the part of it that remains after backward.
        own_seconds: the platform's overhead, extrapolated.
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
    """A step whose phases share the compute time equally."""

    def seconds_of(size: int) -> float:
        return two_level_seconds(gpus, GPUS_PER_NODE, size, NVLINK.link, between.link)

    backward = BACKWARD_SHARE * compute_seconds / len(sent.phases)
    return Step(
        compute_seconds,
        sum(seconds_of(size) for sizes in sent.phases.values() for size in sizes),
        sum(exposed_seconds(sizes, backward, seconds_of) for sizes in sent.phases.values()),
        own_seconds,
    )


def fit(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Least-squares fit a + b log₂ N of the platform's overhead; b is never below 0."""
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
    """Text wrapped like the other pages, and an empty line."""
    return [*wrap(text, 118, break_long_words=False, break_on_hyphens=False), ""]


def render(measured: dict[str, Any], compute_seconds: float = COMPUTE_SECONDS) -> str:
    """The page.

    Args:
        measured: the content of ``scaling.json``.
        compute_seconds: time of a step on one GPU, all phases.
    """
    presets = [traffic(*each) for each in SHOWN]
    lines = [
        "# What a step sends, and how long it takes on 8, 64 and 512 GPUs",
        "",
        *paragraph(
            "`make bench-scaling` writes this page from the presets, from vendors' figures and from"
            " [measurements](../tests/benchmarks/results/scaling.txt) with CPU processes; a test recomputes it."
            " **Nothing here was measured on a GPU**: the times follow from the bytes and the published bandwidths,"
            " and real networks are slower."
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
            "Under DDP a step has one all-reduce of each phase's gradients, in float32 for both `fp32` and `bf16`,"
            f" divided into buckets (the first of {FIRST_BUCKET_BYTES // 2**20} MiB, then of {BUCKET_BYTES // 2**20}"
            " MiB each, or more where a layer is larger). The first bucket of the last phase also carries the"
            " statistics: a vector of two flags and each statistic's count and sums. CGPGAN also reduces the mean"
            " labels of its real samples before its first phase. Nothing else crosses the network in every step: a"
            " [test](../tests/distributed/test_collectives.py) counts the collectives with torch's profiler, and"
            " `make bench-scaling` counts the bytes on the links. DeepSpeed sends the same gradients, and the"
            " statistics separately; at ZeRO 1 and 2 also the weights of each process's partition and two numbers for"
            " the norm."
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
        "B: bytes of a bucket. N: GPUs. β: bytes per second that one GPU sends. α: latency of a message in seconds.",
        "",
        "- ring: `2 (N − 1)/N · B/β + 2 (N − 1) α`",
        "- tree (two trees, each for half of B): `2 (N − 1)/N · B/β + 2 ⌈log₂ N⌉ α`",
        f"- m nodes of g = {GPUS_PER_NODE}: a ring within each node, and a tree between nodes for each GPU's share:",
        "  `2 (g − 1)/g · B/β₁ + 2 (g − 1) α₁ + 2 (m − 1)/m · (B/g)/β₂ + 2 ⌈log₂ m⌉ α₂`",
        "- exposed after backward: buckets are sent one after the other, each once backward has filled it; the first",
        "  layers fill the last bucket, so no computation hides it",
        "",
        *table(
            ("link", "one GPU, one direction", "α, assumed", "source of the bandwidth"),
            [
                (each.name, each.meaning, f"{1e6 * each.link.latency_seconds:.0f} µs", each.source)
                for each in (NVLINK, *BETWEEN)
            ],
        ),
        "",
        f"One all-reduce of {BUCKET_BYTES // 2**20} MiB between single GPUs on {fastest.name}, ring and tree, in ms:",
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
            f"For {milliseconds(compute_seconds)} ms of compute per step and GPU, in equal parts for the phases, of"
            f" which backward takes {BACKWARD_SHARE:.0%}. **This is an assumption; replace it with your own figure**:"
            " `training.batch` / `images_per_second` of your run on one GPU."
            " `python tests/benchmarks/scaling_page.py --compute-seconds 0.1` prints this page for it. NVLink connects"
            " all GPUs of a node. A step is compute + exposed network time + the platform's overhead. Efficiency is"
            " compute / step."
        ),
        *table(
            (
                "method, preset",
                "GPUs",
                "between nodes",
                "network ms",
                "hidden",
                "exposed ms",
                "overhead ms",
                "efficiency",
            ),
            [
                (
                    each.name,
                    str(gpus),
                    "none: one node" if gpus <= GPUS_PER_NODE else fabric.name,
                    milliseconds(found.network_seconds),
                    f"{found.hidden_share:.0%}",
                    milliseconds(found.exposed_seconds),
                    milliseconds(found.own_seconds),
                    f"{found.efficiency:.1%}",
                )
                for each in presets
                for gpus in GPUS
                for fabric in (BETWEEN[:1] if gpus <= GPUS_PER_NODE else BETWEEN)
                for found in [step(each, gpus, fabric, compute_seconds, start + slope * log2(gpus))]
            ],
        ),
        "",
        *paragraph(
            f"The platform's overhead is a + b log₂ N with a = {1e3 * start:.2f} ms and b = {1e3 * slope:.2f} ms. It is"
            f" fitted to measurements with {counts} processes that share {cores} CPU cores, and counts the time beyond"
            " a hand-written loop. It includes the statistics, which are packed before the last backward pass and"
            " piggybacked on its gradients. On a GPU the host runs ahead of the device, which hides most of the"
            " overhead, so this is an upper estimate."
        ),
        *how_sure(measured),
    ]


def how_sure(measured: dict[str, Any]) -> list[str]:
    """The bars of that measurement, and its machine."""
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
            f"The measurement against its bars ({tally(bars)}). The load average before it was"
            f" {machine['load_average']:g} on {machine['cores']} cores."
        ),
        *table(("bar, as a share of the step", "measured", "90% interval", "limit", "verdict"), rows),
        "",
        *paragraph(
            f"{notes} The overhead in the table of times is fitted to the figures of the first bars, whatever their"
            ' verdict. "On its cores" leaves out the time spent waiting for other processes or for a core.'
        ),
    ]


def published_batches(presets: Sequence[Traffic]) -> list[str]:
    first = presets[0]
    return [
        "## What the published batch allows",
        "",
        *paragraph(
            "A batch is divided into streams, and processes × accumulation must divide their number. The published"
            " batches are small: **more GPUs than streams cannot take the published steps**. A preset's"
            " `distributed.streams` may be lower than the method's maximum, and is fixed for a run."
        ),
        *table(
            (
                "method, preset",
                "batch",
                "streams of the preset",
                "least images per stream",
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
            f"{first.name} in batches of {first.batch} runs on at most {first.most_streams} GPUs, with"
            f" {first.least_images} images each. This leaves a GPU mostly idle: the compute of a step shrinks with"
            " its images, but the gradients do not. On more GPUs the batch must grow with them (weak scaling, which"
            " the table of times is for); the last columns are the smallest batches, with one stream per GPU. A larger"
            " batch is a different experiment: it takes fewer steps for the same images, while learning rate,"
            " penalties and decays are published only for the published batch. Its quality was not measured here."
            f" To reproduce the published result, use up to {first.most_streams} GPUs for a run, and the others for"
            " other seeds and settings."
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
