"""No network of any method changes its state in a forward pass: batch norm and its like would know of no other rank."""

from pathlib import Path

import pytest
import torch
from every_method import RUNS, STEPS, settings

from latentscale.config import load_config
from latentscale.methods.registry import METHODS
from latentscale.training.checks import plan_run
from latentscale.training.feed import Feed
from latentscale.training.loop import train
from latentscale.training.method_building import build_method
from latentscale.training.step import prepare_batches
from launching import overrides


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the vanilla run that others invert."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = overrides(**{**settings("vanilla", folder), "training__steps": 1})
    train(load_config(METHODS["vanilla"].Settings, "vanilla", {}, arguments), METHODS["vanilla"])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_forward_passes_of_every_phase_leave_all_networks_as_they_are(run: str, folder: Path) -> None:
    kind = METHODS[RUNS[run]]
    plan = plan_run(load_config(kind.Settings, RUNS[run], {}, overrides(**settings(run, folder))), kind)
    method = build_method(plan)
    for module in (*method.networks.values(), *method.statistics.values()):
        module.double()
    for network in method.networks.values():
        network.train()
    before = {
        (name, key): tensor.clone()
        for name, each in method.networks.items()
        for key, tensor in each.state_dict().items()
    }
    hidden = {name: sum(1 for _ in each.buffers()) for name, each in method.networks.items()}
    with Feed(plan, method, 0, torch.device("cpu"), torch.float64, STEPS - 1) as feed:
        batches = feed.fetch(STEPS - 1)
    batches = prepare_batches(method, batches, torch.float64)
    for phase in method.phases:
        phase.train_only_owned()
        for index, batch in enumerate(batches):
            terms = phase(batch)
            terms.loss.backward()
            batches[index] = batch._replace(kept={**batch.kept, **terms.kept})
    for (name, key), tensor in before.items():
        assert torch.equal(method.networks[name].state_dict()[key], tensor), f"{name}.{key}"
    # nor do they make buffers, kept with the state or not
    assert hidden == {name: sum(1 for _ in each.buffers()) for name, each in method.networks.items()}
