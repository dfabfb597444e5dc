"""InvGAN's three variants against Ghosh et al. 2022, §3.2, sample by sample, with every stop-gradient in its place."""

import itertools

import pytest
import torch
from steps import assert_compiles, assert_same, assert_streams_apart, assert_trains, by_hand, run
from torch import Tensor
from toys import FEATURES, toy_batch, toy_method

from latentscale.errors import UserError
from latentscale.methods.base import Method
from latentscale.methods.invgan import InvGAN, InvGANSettings
from latentscale.methods.phase import Batch
from latentscale.networks.factory import NetworkSettings
from latentscale.networks.initialisation import initialize
from latentscale.networks.mapping import MappingNetwork
from latentscale.networks.spec import ModelSpec

STREAMS, B = 2, 4
VARIANTS = ("naive", "augmented", "full")
WEIGHTS = {"latent_weight": 1.3, "feature_weight": 0.6, "cycle_weight": 0.9, "mmd_weight": 2.1}


def softplus(x: Tensor) -> Tensor:
    return torch.log1p(torch.exp(x))


def mapped(method: Method, z: Tensor) -> Tensor:
    return method.networks["mapping"](z[None])[0]


def generate(method: Method, w: Tensor) -> Tensor:
    return method.networks["generator"](w[None])[0]


def score(method: Method, x: Tensor) -> Tensor:
    return method.networks["discriminator"](x[None]).adversarial[0, 0]


def code(method: Method, x: Tensor) -> Tensor:
    return method.networks["discriminator"](x[None]).latent[0]


def features(method: Method, x: Tensor, frozen: bool) -> Tensor:
    """F(x), tanh of the toy's one linear layer, with its parameters or with their values."""
    trunk = method.networks["discriminator"].trunk
    weight, bias = (trunk.weight.detach(), trunk.bias.detach()) if frozen else (trunk.weight, trunk.bias)
    return torch.tanh(weight @ x + bias)


def squared(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b) ** 2).mean()


def mmd(first: list[Tensor], second: list[Tensor]) -> Tensor:
    points = [point.detach() for point in (*first, *second)]
    distances = sorted(((a - b) ** 2).sum() for a, b in itertools.combinations(points, 2))
    median = distances[(len(distances) - 1) // 2]

    def mean(xs: list[Tensor], ys: list[Tensor]) -> Tensor:
        values = [torch.exp(-((a - b) ** 2).sum() / (2 * median)) for a in xs for b in ys]
        return sum(values) / len(values)

    return mean(first, first) + mean(second, second) - 2 * mean(first, second)


def average(values: list[Tensor]) -> Tensor:
    return sum(values) / len(values)


def discriminator_terms(method: Method, batch: Batch, variant: str) -> dict[str, Tensor]:
    found: dict[str, list[Tensor]] = {name: [] for name in ("adversarial", "r1", "latent", "feature", "cycle", "mmd")}
    for stream in range(STREAMS):
        of_prior, of_reals = [], []
        for sample in range(B):
            row = sample * STREAMS + stream
            real = batch.real[row]
            from_real = variant != "naive" and sample >= B // 2
            if from_real:
                w = code(method, real)
                w = w if variant == "full" else w.detach()
                of_reals.append(w)
            else:
                w = mapped(method, batch.draws["discriminator_latent"][row]).detach()
                of_prior.append(w)
            x = generate(method, w)
            inferred = code(method, x)
            point = real.clone().requires_grad_(True)
            (slope,) = torch.autograd.grad(score(method, point), point, create_graph=True)
            found["r1"].append((slope**2).sum())
            found["adversarial"].append(softplus(-score(method, real)) + softplus(score(method, x.detach())))
            found["latent"].append(squared(w, inferred))
            if variant == "full":
                found["cycle"].append(squared(inferred, code(method, generate(method, inferred))))
                if from_real:
                    found["feature"].append(squared(features(method, real, True), features(method, x, True)))
        if variant == "full":
            found["mmd"].append(mmd(of_prior, of_reals))
    return {name: average(values) for name, values in found.items() if values}


def generator_terms(method: Method, batch: Batch, variant: str) -> dict[str, Tensor]:
    found: dict[str, list[Tensor]] = {name: [] for name in ("adversarial", "latent", "feature", "cycle", "mmd")}
    for stream in range(STREAMS):
        of_prior, of_reals = [], []
        for sample in range(B):
            row = sample * STREAMS + stream
            from_real = variant != "naive" and sample < B // 2
            if from_real:
                w = code(method, batch.real[row]).detach()
                of_reals.append(w)
            else:
                w = mapped(method, batch.draws["generator_latent"][row])
                of_prior.append(w)
            x = generate(method, w)
            inferred = code(method, x)
            found["adversarial"].append(softplus(-score(method, x)))
            found["latent"].append(squared(w, inferred))
            if variant == "full":
                found["cycle"].append(squared(inferred, code(method, generate(method, inferred))))
                if from_real:
                    found["feature"].append(squared(features(method, batch.real[row], True), features(method, x, True)))
        if variant == "full":
            found["mmd"].append(mmd(of_prior, of_reals))
    return {name: average(values) for name, values in found.items() if values}


def weighted(terms: dict[str, Tensor]) -> Tensor:
    weights = {"adversarial": 1.0, "r1": 0.7} | {name.removesuffix("_weight"): w for name, w in WEIGHTS.items()}
    return sum(weights[name] * value for name, value in terms.items())


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_phases_are_the_papers_objective(variant: str) -> None:
    method = toy_method("invgan", variant=variant, **WEIGHTS)
    batch = toy_batch(method, STREAMS, B)
    results, (d_found, g_found) = run(method, batch)
    d_loss = lambda: weighted(discriminator_terms(method, batch, variant))  # noqa: E731
    g_loss = lambda: weighted(generator_terms(method, batch, variant))  # noqa: E731
    assert_same(d_found, by_hand(method, {"discriminator": d_loss}))
    assert_same(g_found, by_hand(method, {"generator": g_loss, "mapping": g_loss}))
    for terms, expected, loss in (
        (results[0], discriminator_terms(method, batch, variant), d_loss),
        (results[1], generator_terms(method, batch, variant), g_loss),
    ):
        torch.testing.assert_close(terms.loss, loss(), rtol=1e-12, atol=0)
        for name, value in expected.items():
            torch.testing.assert_close(terms.measured[name], value, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_phase_trains_all_of_its_networks_and_keeps_no_graph(variant: str) -> None:
    method = toy_method("invgan", variant=variant)
    results, (d_found, g_found) = run(method, toy_batch(method))
    assert_trains(d_found, method, "discriminator")
    assert_trains(g_found, method, "generator", "mapping")
    assert set(results[0].kept) == (set() if variant == "naive" else {"latent", "features"})
    for terms in results:
        assert not any(value.requires_grad for value in (*terms.kept.values(), *terms.measured.values()))


def test_the_feature_loss_moves_the_encoder_but_not_the_features_it_is_measured_in() -> None:
    """With F's parameters live in L_fm the trunk's gradient would be another one, far above the tests' tolerance."""
    method = toy_method("invgan", variant="full", latent_weight=1e-9, cycle_weight=0.0, mmd_weight=0.0, r1=0.0)
    batch = toy_batch(method, STREAMS, B)
    _, (found, _) = run(method, batch)

    def with_features(frozen: bool) -> Tensor:
        losses = []
        for row in range(B * STREAMS // 2, B * STREAMS):
            x = generate(method, code(method, batch.real[row]))
            losses.append(squared(features(method, batch.real[row], frozen), features(method, x, frozen)))
        return average(losses)

    method.networks["discriminator"].requires_grad_(True)
    parameter = method.networks["discriminator"].trunk.weight
    rest = discriminator_terms(method, batch, "full")["adversarial"]
    (rest,) = torch.autograd.grad(rest, parameter)
    right, wrong = (torch.autograd.grad(with_features(frozen), parameter)[0] for frozen in (True, False))
    assert parameter.shape[0] == FEATURES
    assert (found["discriminator.trunk.weight"] - rest - right).abs().max() < 1e-6
    assert (found["discriminator.trunk.weight"] - rest - wrong).abs().max() > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_streams_together_are_streams_apart(variant: str) -> None:
    method = toy_method("invgan", variant=variant, **WEIGHTS)
    assert_streams_apart(method, toy_batch(method, STREAMS, B))


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_both_phases_compile_whole(variant: str) -> None:
    method = toy_method("invgan", variant=variant, **WEIGHTS)
    assert_compiles(method, toy_batch(method))


def test_an_odd_batch_a_stream_is_refused_where_it_is_halved() -> None:
    InvGAN.validate(InvGANSettings(variant="naive"), "normal", 3)
    for variant in ("augmented", "full"):
        with pytest.raises(UserError, match=r"distributed\.streams"):
            InvGAN.validate(InvGANSettings(variant=variant), "normal", 3)


def test_codes_of_the_prior_are_mapped_and_those_of_reals_inferred() -> None:
    method = toy_method("invgan")
    batch = toy_batch(method)
    z = batch.draws["generator_latent"]
    torch.testing.assert_close(method.map_latent(z), torch.stack([mapped(method, each) for each in z]))
    torch.testing.assert_close(method.encode(batch.real), torch.stack([code(method, each) for each in batch.real]))


def test_the_mapping_network_by_hand() -> None:
    mapping = MappingNetwork(2, 1, 2, 0.5)
    first, second = mapping.layers
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[4.0, -2.0]]))
        first.bias.fill_(3.0)
        second.weight.fill_(-6.0)
    # ½·(4·1 − 2·0.5)/√2 + ½·3, positive; then −6·½ of it, times 0.2 below 0
    inner = 0.5 * 3 / 2**0.5 + 1.5
    assert mapping(torch.tensor([[1.0, 0.5]])).item() == pytest.approx(0.2 * -3 * inner, rel=1e-6)


def test_the_learning_rate_multiplier_changes_how_fast_but_not_what_it_starts_from() -> None:
    z = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    outputs, moved = {}, {}
    for rate in (1.0, 0.01):
        mapping = MappingNetwork(8, 8, 1, rate)
        initialize(mapping, 7, "mapping")
        outputs[rate] = mapping(z).detach()
        optimizer = torch.optim.Adam(mapping.parameters(), lr=1e-3)
        before = mapping.layers[0].weight.detach() * mapping.layers[0].multiplier
        mapping(z).square().sum().backward()
        optimizer.step()
        moved[rate] = (mapping.layers[0].weight.detach() * mapping.layers[0].multiplier - before).abs().mean()
    torch.testing.assert_close(outputs[1.0], outputs[0.01], rtol=1e-5, atol=1e-6)
    assert moved[0.01] / moved[1.0] == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("layers", [2, 8])
def test_its_networks_have_a_mapping_of_as_many_layers_as_asked_for(layers: int) -> None:
    networks = InvGAN.build_networks(
        InvGANSettings(mapping_layers=layers), NetworkSettings(family="mlp", widths=[8]), ModelSpec((5,), 3)
    )
    assert set(networks) == {"generator", "discriminator", "mapping"}
    assert [tuple(p.shape) for _, p in networks["mapping"].named_parameters()] == [(3, 3), (3,)] * layers
