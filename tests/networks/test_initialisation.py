"""Initial weights are a function of seed and name alone."""

import zlib

import pytest
import torch
from scipy.special import ndtri
from torch import nn

from latentscale.latents.draws import Purpose, uniforms
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.factory import NetworkSettings, build_discriminator, build_generator
from latentscale.networks.initialisation import initialize

SETTINGS = NetworkSettings(family="skip", widths=[12, 16], base_width=16)


def generator(seed: int = 1, name: str = "generator", dtype: torch.dtype = torch.float32) -> nn.Module:
    network = build_generator(SETTINGS, 8, (3, 16, 16)).to(dtype)
    initialize(network, seed, name)
    return network


def test_float32_is_float64_rounded() -> None:
    single, double = generator().state_dict(), generator(dtype=torch.float64).state_dict()
    assert all(torch.equal(single[name], double[name].float()) for name in single)
    assert any(not torch.equal(single[name].double(), double[name]) for name in single)


def test_independent_of_order_and_of_torch_generators() -> None:
    torch.manual_seed(1)
    first = generator().state_dict()
    torch.manual_seed(2)
    generator(seed=5)
    second = generator().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_additional_head_changes_no_other_weight() -> None:
    states = []
    for heads in (Heads(1, 8), Heads(1, 8, 8)):
        network = build_discriminator(SETTINGS, 8, (3, 16, 16), heads)
        initialize(network, 1, "discriminator")
        states.append(network.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_seed_and_name_matter() -> None:
    reference = generator().state_dict()["project.weight"]
    assert not torch.equal(reference, generator(seed=2).state_dict()["project.weight"])
    assert not torch.equal(reference, generator(name="other").state_dict()["project.weight"])


def test_values_from_the_definition() -> None:
    weight = generator(seed=9, dtype=torch.float64).state_dict()["hidden.weight"]
    draws = uniforms(9, Purpose.WEIGHTS, zlib.crc32(b"generator.hidden.weight"), 0, weight.numel())
    assert weight.flatten().tolist() == pytest.approx(ndtri(draws).tolist(), rel=1e-12)


def test_weights_are_standard_normal_and_biases_zero() -> None:
    weights = []
    for name, parameter in generator().named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        else:
            weights.append(parameter.detach().flatten())
    everything = torch.cat(weights)
    deviation = 1 / everything.numel() ** 0.5
    assert float(everything.mean()) == pytest.approx(0, abs=4 * deviation)
    assert float(everything.std()) == pytest.approx(1, abs=4 * deviation)
