"""The adversarial table by hand."""

import math

import pytest
import torch

from latentscale.losses.adversarial import ADVERSARIAL


def softplus(a: float) -> float:
    return math.log1p(math.exp(a))


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("nonsaturating", [softplus(-2) + softplus(0.5), 2 * math.log(2)], [softplus(-0.5), math.log(2)]),
        ("least_squares", [1.0 + 0.25, 1.0], [0.25, 1.0]),
        ("hinge", [0.0 + 1.5, 2.0], [-0.5, 0.0]),
        ("wasserstein", [-1.5, 0.0], [-0.5, 0.0]),
        ("relativistic", [softplus(-1.5), math.log(2)], [softplus(1.5), math.log(2)]),
    ],
)
def test_values(name: str, discriminator: list[float], generator: list[float]) -> None:
    real, fake = torch.tensor([[2.0], [0.0]]).double(), torch.tensor([[0.5], [0.0]]).double()
    loss = ADVERSARIAL[name]
    assert loss.discriminator(real, fake).shape == (2, 1)
    assert loss.discriminator(real, fake).flatten().tolist() == pytest.approx(discriminator)
    assert loss.generator(real if loss.paired else None, fake).flatten().tolist() == pytest.approx(generator)


def test_hinge_is_flat_beyond_its_margins() -> None:
    assert ADVERSARIAL["hinge"].discriminator(torch.tensor([5.0]), torch.tensor([-5.0])).item() == 0.0


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_the_discriminator_wants_reals_high_and_the_generator_fakes_high(name: str) -> None:
    real, fake = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    by_real, by_fake = torch.autograd.grad(ADVERSARIAL[name].discriminator(real, fake + 0.1).sum(), [real, fake])
    assert by_real < 0 < by_fake
    (by_fake,) = torch.autograd.grad(ADVERSARIAL[name].generator(real.detach(), fake).sum(), [fake])
    assert by_fake < 0
