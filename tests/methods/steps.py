"""What tests of every method share: a step's gradients, each stream alone, and each phase compiled."""

from collections.abc import Callable

import torch
from torch import Tensor

from latentscale.methods.base import Method
from latentscale.methods.phase import Batch, Terms

Gradients = dict[str, Tensor]


def run(method: Method, batch: Batch) -> tuple[list[Terms], list[Gradients]]:
    """Every phase at the same weights, with the gradients of each, those of all networks."""
    results, gradients = [], []
    for phase in method.phases:
        phase.train_only_owned()
        for network in method.networks.values():
            network.zero_grad()
        terms = phase(batch)
        terms.loss.backward()
        found = {
            f"{name}.{key}": parameter.grad.clone()
            for name, network in method.networks.items()
            for key, parameter in network.named_parameters()
            if parameter.grad is not None
        }
        results.append(terms)
        gradients.append(found)
        batch = batch._replace(kept={**batch.kept, **terms.kept})
    return results, gradients


def value_by_hand(method: Method, network: str, loss: Callable[[], Tensor]) -> tuple[Tensor, Gradients]:
    """A loss and one network's gradient of it, with everything else free to carry gradients."""
    for each in method.networks.values():
        each.requires_grad_(True)
    value = loss()
    parameters = dict(method.networks[network].named_parameters())
    slopes = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    return value, {f"{network}.{key}": g for key, g in zip(parameters, slopes, strict=True) if g is not None}


def by_hand(method: Method, losses: dict[str, Callable[[], Tensor]]) -> Gradients:
    """Each network's gradient of its own loss."""
    found: Gradients = {}
    for network, loss in losses.items():
        found |= value_by_hand(method, network, loss)[1]
    return found


def assert_same(found: Gradients, expected: Gradients) -> None:
    """The same gradients, on exactly the same parameters."""
    assert found.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-9, atol=1e-13)


def assert_trains(found: Gradients, method: Method, *networks: str) -> None:
    """Every parameter of these networks has a gradient and no other has one."""
    assert found.keys() == {f"{name}.{key}" for name in networks for key, _ in method.networks[name].named_parameters()}


def assert_streams_apart(method: Method, batch: Batch) -> None:
    """The mean of the streams' own losses and gradients is that of all streams together."""
    together, slopes = run(method, batch)
    apart = []
    for stream in range(batch.streams):
        rows = slice(stream, None, batch.streams)
        alone = batch._replace(
            real=batch.real[rows],
            draws={name: draw[rows] for name, draw in batch.draws.items()},
            labels=None if batch.labels is None else batch.labels[rows],
            streams=1,
        )
        apart.append(run(method, alone))
    for index, (terms, gradient) in enumerate(zip(together, slopes, strict=True)):
        mean = sum(results[index].loss for results, _ in apart) / batch.streams
        torch.testing.assert_close(terms.loss, mean, rtol=1e-12, atol=1e-14)
        for key, value in gradient.items():
            average = sum(gradients[index][key] for _, gradients in apart) / batch.streams
            torch.testing.assert_close(value, average, rtol=1e-9, atol=1e-13)


def assert_compiles(method: Method, batch: Batch) -> None:
    """Each phase compiles whole and gives the same loss and gradients."""
    results, gradients = run(method, batch)
    for phase, expected, slopes in zip(method.phases, results, gradients, strict=True):
        torch._dynamo.reset()
        phase.train_only_owned()
        for network in method.networks.values():
            network.zero_grad()
        terms = torch.compile(phase, backend="aot_eager", fullgraph=True)(batch)
        terms.loss.backward()
        torch.testing.assert_close(terms.loss, expected.loss, rtol=1e-12, atol=0)
        for key, parameter in phase.named_parameters():
            torch.testing.assert_close(parameter.grad, slopes[key], rtol=1e-9, atol=1e-13)
        batch = batch._replace(kept={**batch.kept, **expected.kept})


def assert_losses_in_float32(method: Method, batch: Batch) -> None:
    """Under bf16 autocast each loss and each measured value is a float32.

    Args:
        method, batch: converted to float32 here.
    """
    for module in (*method.networks.values(), *method.statistics.values()):
        module.float()
    batch = batch._replace(
        real=batch.real.float(),
        draws={name: draw.float() for name, draw in batch.draws.items()},
        kept={name: kept.float() for name, kept in batch.kept.items()},
        state=method.state(),
    )
    for phase in method.phases:
        phase.train_only_owned()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = phase(batch)
        assert {value.dtype for value in (terms.loss, *terms.measured.values())} == {torch.float32}
        batch = batch._replace(kept={**batch.kept, **terms.kept})
