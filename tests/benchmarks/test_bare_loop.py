"""The benchmark's hand-written loop computes what the platform does: the same state after the same steps."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from bare_loop import BareLoop
from cases import bare_settings

from latentscale.config import Config, load_config
from latentscale.methods.pvdgan import PVDGAN
from latentscale.training.checkpoints import list_checkpoints, load_checkpoint
from latentscale.training.checks import plan_run
from latentscale.training.feed import Feed
from latentscale.training.loop import train
from latentscale.training.method_building import build_method
from launching import ROOT, overrides

STEPS = 3


def configuration(folder: Path) -> Config:
    """Two streams, whose halves are the halves of the bare loop's batch."""
    arguments = overrides(
        training__steps=STEPS,
        training__report_every_steps=1,
        training__batch=8,
        distributed__streams=2,
        method__r1=0.7,
        run__dir=folder,
    )
    presets = ROOT / "recipes" / "presets"
    return load_config(PVDGAN.Settings, "pvdgan", {"preset": "digits8"}, arguments, presets)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the platform."""
    folder = tmp_path_factory.mktemp("platform")
    train(configuration(folder), PVDGAN)
    return folder


def bare(config: Config, **changes: float) -> tuple[BareLoop, list[dict[str, torch.Tensor]]]:
    """The hand-written loop after the same steps on the same batches and draws, and each step's losses."""
    plan = plan_run(config, PVDGAN)
    method = build_method(plan)
    generator, discriminator = (network.double() for network in method.networks.values())
    settings = dataclasses.replace(bare_settings(config), **changes)  # type: ignore[arg-type]
    loop = BareLoop(generator, discriminator, settings)
    losses = []
    with Feed(plan, method, 0, torch.device("cpu"), torch.float64, 0) as feed:
        for step in range(STEPS):
            (batch,) = feed.fetch(step)
            losses.append(loop.step(batch.real, batch.draws["discriminator_latent"], batch.draws["generator_latent"]))
    return loop, losses


def difference(loop: BareLoop, folder: Path) -> float:
    """The largest difference of weights, averages and variance, relative to the largest element of each."""
    state = load_checkpoint(list_checkpoints(folder / "checkpoints")[-1]).tensors
    ours = {"statistic/variance/variance": loop.variance}
    for kind, generator, discriminator in (
        ("network", loop.generator, loop.discriminator),
        ("average", loop.average_generator, loop.average_discriminator),
    ):
        for name, network in (("generator", generator), ("discriminator", discriminator)):
            ours |= {f"{kind}/{name}/{key}": value for key, value in network.named_parameters()}
    theirs = {name: state[name] for name in state if not name.startswith("optimizer/")}
    assert ours.keys() == theirs.keys()
    return max(float((ours[name].detach() - value).abs().max() / value.abs().max()) for name, value in theirs.items())


@pytest.mark.slow
def test_both_end_in_the_same_state(trained: Path) -> None:
    loop, _ = bare(configuration(trained))
    assert difference(loop, trained) <= 1e-9


@pytest.mark.slow
def test_another_penalty_weight_ends_elsewhere(trained: Path) -> None:
    loop, _ = bare(configuration(trained), r1=0.8)
    assert difference(loop, trained) > 1e-5


@pytest.mark.slow
def test_every_loss_is_the_same(trained: Path) -> None:
    _, losses = bare(configuration(trained))
    reports = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    reports = [report for report in reports if "seconds/total" in report]
    assert len(reports) == STEPS
    for ours, report in zip(losses, reports, strict=True):
        assert len(ours) == 6
        for name, value in ours.items():
            assert report[name] == pytest.approx(float(value), rel=1e-5)  # reports are summed in float32


def test_the_kept_figures_pass_their_bars() -> None:
    kept = json.loads((ROOT / "tests" / "benchmarks" / "results" / "cost.json").read_text())
    assert kept["machine"]["rounds"] >= 7
    assert {bar["case"] for bar in kept["bars"]} == {
        "digits8",
        "images32",
        "images32_decoded",
        "images32_two_processes",
    }
    for bar in kept["bars"]:
        assert bar["passed"] == (bar["value"] <= bar["most"])
        assert bar["passed"], bar["name"]
