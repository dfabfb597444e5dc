"""ACGAN, its revision and CAGAN against their equations, written out sample by sample in float64."""

import math

import pytest
import torch
from steps import assert_compiles, assert_losses_in_float32, assert_streams_apart, assert_trains, run
from steps import value_by_hand as by_hand
from test_equations import softplus
from torch import Tensor
from toys import FEATURES, toy_batch, toy_method

from latentscale.methods.base import Method
from latentscale.methods.phase import Batch
from latentscale.methods.registry import METHODS
from latentscale.networks.factory import NetworkSettings
from latentscale.networks.spec import ModelSpec

LABELS = [(3,), (3, 2, 2)]
CASES = [
    *(("cagan", sizes, {}) for sizes in LABELS),
    *(("acgan", sizes, {}) for sizes in LABELS),
    *(("acgan", sizes, {"revised": True, "classification_weight": 2.5}) for sizes in LABELS),
]
R1, R2 = 0.7, 0.3


def make(name: str, sizes: tuple[int, ...], **settings: object) -> Method:
    return toy_method(name, sizes, **{"r1": R1, "r2": R2, **settings})


def fake_labels(batch: Batch, phase: str, index: int, sizes: tuple[int, ...]) -> list[int]:
    """Categories that uniforms give under a uniform P(C): ⌊u·d_c⌋."""
    return [int(u * size) for u, size in zip(batch.draws[f"{phase}_category"][index].tolist(), sizes, strict=True)]


def one_hot_parts(labels: list[int], sizes: tuple[int, ...]) -> list[list[float]]:
    return [[1.0 if k == label else 0.0 for k in range(size)] for label, size in zip(labels, sizes, strict=True)]


def generate(method: Method, z: Tensor, labels: list[int], sizes: tuple[int, ...]) -> Tensor:
    """G(z, c) with categories normalised to (d_c·c − 1)/√(d_c − 1)."""
    entries = [
        (size * c - 1) / math.sqrt(size - 1)
        for part, size in zip(one_hot_parts(labels, sizes), sizes, strict=True)
        for c in part
    ]
    whole = torch.cat([z, torch.tensor(entries, dtype=torch.float64)])
    return method.networks["generator"].generator(whole[None])[0]


def values(name: str, method: Method, x: Tensor, labels: list[int], sizes: tuple[int, ...]) -> list[Tensor]:
    """What the adversarial loss is taken of: CAGAN's a·c for each label, ACGAN's one a."""
    a = method.networks["discriminator"](x[None]).adversarial[0]
    if name == "acgan":
        assert len(a) == 1
        return [a[0]]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [a[start + label] for start, label in zip(starts, labels, strict=True)]


def classification(method: Method, x: Tensor, labels: list[int], sizes: tuple[int, ...]) -> Tensor:
    """−c · log Q(x), averaged over labels."""
    q = method.networks["discriminator"](x[None]).classes[0]
    losses, start = [], 0
    for label, size in zip(labels, sizes, strict=True):
        odds = torch.exp(q[start : start + size])
        losses.append(-torch.log(odds[label] / odds.sum()))
        start += size
    return sum(losses) / len(losses)


def slope(name: str, method: Method, x: Tensor, labels: list[int], sizes: tuple[int, ...]) -> Tensor:
    """‖∇_x a‖² of the mean over labels of the values."""
    x = x.detach().clone().requires_grad_(True)
    mine = values(name, method, x, labels, sizes)
    (gradient,) = torch.autograd.grad(sum(mine) / len(mine), x, create_graph=True)
    return (gradient**2).sum()


def discriminator_loss(name: str, method: Method, batch: Batch, sizes: tuple[int, ...]) -> Tensor:
    samples, settings = [], method.settings
    for index, (real, z) in enumerate(zip(batch.real, batch.draws["discriminator_latent"], strict=True)):
        c_r, c_f = batch.labels[index].tolist(), fake_labels(batch, "discriminator", index, sizes)
        fake = generate(method, z, c_f, sizes).detach()
        pairs = list(zip(values(name, method, real, c_r, sizes), values(name, method, fake, c_f, sizes), strict=True))
        loss = sum(softplus(-a_r) + softplus(a_f) for a_r, a_f in pairs) / len(pairs)
        loss = loss + R1 * slope(name, method, real, c_r, sizes) + R2 * slope(name, method, fake, c_f, sizes)
        if name == "acgan":
            loss = loss + settings.classification_weight * classification(method, real, c_r, sizes)
            if not settings.revised:
                loss = loss + classification(method, fake, c_f, sizes)
        samples.append(loss)
    return sum(samples) / len(samples)


def generator_loss(name: str, method: Method, batch: Batch, sizes: tuple[int, ...]) -> Tensor:
    samples = []
    for index, z in enumerate(batch.draws["generator_latent"]):
        c_f = fake_labels(batch, "generator", index, sizes)
        fake = generate(method, z, c_f, sizes)
        mine = values(name, method, fake, c_f, sizes)
        loss = sum(softplus(-a) for a in mine) / len(mine)
        if name == "acgan":
            loss = loss + method.settings.classification_weight * classification(method, fake, c_f, sizes)
        samples.append(loss)
    return sum(samples) / len(samples)


@pytest.mark.parametrize(("name", "sizes", "settings"), CASES)
def test_both_phases_are_the_papers_equations(name: str, sizes: tuple[int, ...], settings: dict) -> None:
    method = make(name, sizes, **settings)
    batch = toy_batch(method)
    (d_terms, g_terms), found = run(method, batch)
    expected = [
        by_hand(method, "discriminator", lambda: discriminator_loss(name, method, batch, sizes)),
        by_hand(method, "generator", lambda: generator_loss(name, method, batch, sizes)),
    ]
    for terms, gradients, (loss, slopes) in zip((d_terms, g_terms), found, expected, strict=True):
        torch.testing.assert_close(terms.loss, loss, rtol=1e-12, atol=1e-14)
        # on exactly the parameters that the phase trains
        assert gradients.keys() == slopes.keys()
        for key in slopes:
            torch.testing.assert_close(gradients[key], slopes[key], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("name", "sizes", "settings"), CASES)
def test_every_parameter_of_a_phase_is_trained_and_no_other(name: str, sizes: tuple[int, ...], settings: dict) -> None:
    method = make(name, sizes, **settings)
    _, found = run(method, toy_batch(method))
    for gradients, network in zip(found, ("discriminator", "generator"), strict=True):
        assert_trains(gradients, method, network)


@pytest.mark.parametrize(("name", "sizes", "settings"), CASES)
def test_streams_together_are_streams_apart(name: str, sizes: tuple[int, ...], settings: dict) -> None:
    method = make(name, sizes, **settings)
    assert_streams_apart(method, toy_batch(method, streams=2, stream_batch=4))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sizes", "settings"), CASES)
def test_a_phase_compiles_whole_and_gives_the_same_numbers(name: str, sizes: tuple[int, ...], settings: dict) -> None:
    method = make(name, sizes, **settings)
    assert_compiles(method, toy_batch(method))


@pytest.mark.parametrize("name", ["cagan", "acgan"])
def test_under_bf16_every_loss_is_taken_in_float32(name: str) -> None:
    method = make(name, (3, 2, 2))
    assert_losses_in_float32(method, toy_batch(method))


def test_a_discriminator_of_hair_colour_and_two_attributes_has_seven_outputs() -> None:
    spec = ModelSpec((FEATURES,), 5, (3, 2, 2))
    network = NetworkSettings(family="mlp", widths=[6])
    for name, outputs in (("cagan", 7), ("acgan", 1)):
        method = METHODS[name]
        networks = method.build_networks(method.Settings(), network, spec)
        seen = networks["discriminator"](torch.zeros(2, FEATURES))
        assert seen.adversarial.shape == (2, outputs)
        assert (seen.classes is None) == (name == "cagan")
        fakes = networks["generator"](torch.zeros(2, 5), torch.zeros(2, 7))
        assert fakes.shape == (2, FEATURES)
    assert seen.classes.shape == (2, 7)


def test_an_output_of_another_category_has_no_gradient() -> None:
    method = make("cagan", (3,), r2=0.0)
    batch = toy_batch(method)
    absent = 2
    u = batch.draws["discriminator_category"]
    batch.draws["discriminator_category"] = u * 2 / 3  # categories 0 and 1 alone
    batch = batch._replace(labels=batch.labels % 2)
    _, (found, _) = run(method, batch)
    weight, bias = found["discriminator.adversarial.weight"], found["discriminator.adversarial.bias"]
    assert not weight[absent].any()
    assert not bias[absent]
    assert weight[:absent].any(dim=1).all()


def test_fakes_have_uniform_categories_whatever_the_labels() -> None:
    method = make("cagan", (3, 2))
    expected = torch.tensor([1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2], dtype=torch.float64)
    torch.testing.assert_close(method.state()["category_prior"], expected, rtol=1e-7, atol=0)
    results, _ = run(method, toy_batch(method))
    assert not any(terms.observed for terms in results)  # so it stays
