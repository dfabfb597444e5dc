"""A step's collectives, counted by the profiler in real processes: the gradients of each phase, and nothing more."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from latentscale.config import load_config
from latentscale.methods.base import Method
from latentscale.methods.registry import METHODS
from latentscale.training.checks import plan_dry_run
from latentscale.training.method_building import build_method
from launching import ROOT, Processes, launch_command, overrides

SCRIPT = ROOT / "tests" / "distributed" / "collectives.py"
LATENT_DIM, DIGITS = 8, 10
PVDGAN: dict[str, object] = {"latent__dim": LATENT_DIM}

pytestmark = pytest.mark.processes

Counts = Counter[tuple[str, int]]
Count = Callable[..., dict[str, Counts]]


@pytest.fixture
def count(processes: Processes, tmp_path: Path) -> Count:
    """The number of each collective in runs of two processes, by name and, for all-reduces, number of elements."""

    def run(method: str, runs: dict[str, dict[str, object]], extra: str = "") -> dict[str, Counts]:
        # one report, at the end: its own all-reduce is the same in every run
        listed = [
            (name, name == extra, overrides(training__report_every_steps=100, run__dir=tmp_path / name / "run", **own))
            for name, own in runs.items()
        ]
        file = tmp_path / "runs.json"
        file.write_text(json.dumps(listed))
        command = [part for part in launch_command(2, SCRIPT) if not part.startswith("distributed.")]
        finished = processes.run(
            [*command, str(tmp_path), method, str(file)], PYTHONPATH=str(ROOT / "platform"), timeout_seconds=240
        )
        assert finished.code == 0, finished.err[-4000:]
        return {name: counts_of(tmp_path / name) for name in runs}

    return run


def counts_of(folder: Path) -> Counts:
    first, second = (
        Counter(
            # objects that start a run hold paths, whose lengths differ
            (name, elements if name == "gloo:all_reduce" else 0)
            for name, elements in json.loads((folder / f"rank-{rank}.json").read_text())
        )
        for rank in (0, 1)
    )
    assert first == second
    return first


def built(name: str, **changes: object) -> Method:
    kind = METHODS[name]
    config = load_config(kind.Settings, name, {"preset": "digits8"}, overrides(**changes), ROOT / "recipes" / "presets")
    return build_method(plan_dry_run(config, kind))


def gradients(method: Method) -> list[int]:
    """Numbers of each phase's gradients, all far below a bucket."""
    return [sum(parameter.numel() for parameter in phase.parameters()) for phase in method.phases]


def test_a_step_reduces_the_gradients_and_the_statistics_with_the_last_of_them(count: Count) -> None:
    discriminator, generator = gradients(built("pvdgan", **PVDGAN))
    statistics = 1 + 1 + 1 + LATENT_DIM  # stop, samples newly found unreadable, count, sums
    step = Counter({("gloo:all_reduce", discriminator): 1, ("gloo:all_reduce", generator + statistics): 1})
    found = count(
        "pvdgan",
        {
            "two": {**PVDGAN, "training__steps": 2},
            "four": {**PVDGAN, "training__steps": 4},
            "accumulated": {**PVDGAN, "training__steps": 4, "training__accumulation": 2},
            "one more": {**PVDGAN, "training__steps": 4},
        },
        extra="one more",
    )
    two, four = found["two"], found["four"]
    assert sum(two.values()) > 6  # what starts and ends a run is there, and cancels
    assert difference(four, two) == times(step, 2)
    # micro-batches before the last reduce nothing
    assert found["accumulated"] == four
    # positive control
    assert difference(found["one more"], four) == Counter({("gloo:all_reduce", 1): 4})


def test_cgpgan_also_reduces_the_means_of_its_labels(count: Count) -> None:
    method = built("cgpgan")
    *others, last = gradients(method)
    statistics = 1 + 1 + sum(1 + statistic.size for statistic in method.statistics.values())
    step = Counter(
        {
            **{("gloo:all_reduce", size): 1 for size in others},
            ("gloo:all_reduce", last + statistics): 1,
            ("gloo:all_reduce", DIGITS + 1): 1,  # means of the labels, and their count
        }
    )
    found = count("cgpgan", {"two": {"training__steps": 2}, "four": {"training__steps": 4}})
    assert difference(found["four"], found["two"]) == times(step, 2)


def difference(a: Counts, b: Counts) -> Counts:
    """The collectives that a has in addition to b's."""
    assert not b - a
    return a - b


def times(counts: Counts, number: int) -> Counts:
    return Counter({key: number * value for key, value in counts.items()})
