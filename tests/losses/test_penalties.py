"""Gradient penalties: a known gradient, and `autograd.grad(create_graph=True)` as the second derivation."""

import pytest
import torch
from torch import Tensor, nn

from latentscale.losses.penalties import discriminate_with_gradient
from latentscale.networks.discriminator_output import DiscriminatorOutput, Heads
from latentscale.networks.factory import NetworkSettings, build_discriminator
from latentscale.networks.initialisation import initialize

HEADS = Heads(adversarial=2, latent=5)


class Quadratic(nn.Module):
    """a(x) = Σ w x²: the gradient is 2 w x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -0.5, 2.0]).double())

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        value = (self.weight * x.square()).sum(1, keepdim=True)
        return DiscriminatorOutput(value, None, None, x)


def first(seen: DiscriminatorOutput) -> Tensor:
    return seen.adversarial[:, 0]


def test_a_quadratic_by_hand() -> None:
    network = Quadratic()
    x = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 1.0]]).double()
    seen, squared = discriminate_with_gradient(network, x, first)
    # ‖2wx‖² = 4 (1 + 1 + 1) and 4·4: a sum over elements, without ½.
    assert squared.tolist() == pytest.approx([12.0, 16.0])
    assert seen.adversarial.flatten().tolist() == pytest.approx([1 - 2 + 0.5, 2.0])
    assert seen.latent is None
    assert seen.log_variance is None
    # d mean(4 Σ w²x²)/dw = 8 w Σ_batch x² / 2.
    (gradient,) = torch.autograd.grad(squared.mean(), network.weight)
    assert gradient.tolist() == pytest.approx([4 * 1.0 * 1.0, 4 * -0.5 * 4.0, 4 * 2.0 * 1.25])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["residual", "skip", "mlp"])
@pytest.mark.parametrize("side", [8, 64])
def test_equal_to_autograd_in_float64(family: str, side: int) -> None:
    network = discriminator(family, side).double()
    x = torch.randn(3, 2, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    seen, squared = discriminate_with_gradient(network, x, first)
    loss = squared.mean() + seen.latent.square().mean() + seen.adversarial.mean()

    leaf = x.clone().requires_grad_()
    plain = network(leaf)
    (gradient,) = torch.autograd.grad(first(plain).sum(), leaf, create_graph=True)
    expected = gradient.square().sum((1, 2, 3))
    plain_loss = expected.mean() + plain.latent.square().mean() + plain.adversarial.mean()

    torch.testing.assert_close(squared, expected, rtol=1e-12, atol=0)
    for ours, theirs in zip(parameter_gradients(loss, network), parameter_gradients(plain_loss, network), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("family", ["residual", "skip", "mlp"])
def test_parameter_gradient_by_finite_differences(family: str) -> None:
    network = discriminator(family, 16).double()
    x = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    parameters = list(network.parameters())
    squared = discriminate_with_gradient(network, x, first)[1].mean()
    gradients = torch.autograd.grad(squared, parameters, allow_unused=True)
    generator = torch.Generator().manual_seed(3)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        moved = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(direction, alpha=sign * 1e-7)
            moved.append(discriminate_with_gradient(network, x, first)[1].mean().item())
            with torch.no_grad():
                parameter.sub_(direction, alpha=sign * 1e-7)
        slope = (moved[0] - moved[1]) / 2e-7
        assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-3, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["residual", "skip", "mlp"])
@pytest.mark.parametrize("side", [8, 16])
def test_compiled_full_graph_is_equal(family: str, side: int) -> None:
    torch._dynamo.reset()
    network = discriminator(family, side).double()
    x = torch.randn(2, 2, side, side, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        seen, squared = discriminate_with_gradient(network, x, first)
        return squared.mean() + seen.latent.square().mean() + seen.adversarial.mean()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(compiled, loss(x), rtol=1e-12, atol=0)
    pairs = zip(parameter_gradients(compiled, network), parameter_gradients(loss(x), network), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["residual", "skip", "mlp"])
def test_bf16_autocast_is_within_two_percent_and_uses_no_stale_cached_weight(family: str) -> None:
    network = discriminator(family, 16)
    x = torch.randn(16, 2, 16, 16, generator=torch.Generator().manual_seed(5))
    full = discriminate_with_gradient(network, x, first)[1].mean()
    results = []
    for cached in (True, False):
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=cached):
            # Ordinary passes before and after leave cast weights in autocast's cache.
            before = network(x).adversarial.float().mean()
            seen, squared = discriminate_with_gradient(network, x, first)
            after = network(x).latent.float().square().mean()
        assert squared.dtype == torch.float32
        assert seen.adversarial.dtype == torch.bfloat16
        assert squared.mean().item() == pytest.approx(full.item(), rel=0.02)
        loss = before + squared.mean() + after + seen.latent.float().mean()
        results.append(parameter_gradients(loss, network))
    for ours, theirs in zip(*results, strict=True):
        assert float((ours - theirs).norm()) <= 0.02 * float(theirs.norm()) + 1e-6


def test_no_gradient_reaches_the_input() -> None:
    x = torch.ones(1, 3, dtype=torch.float64, requires_grad=True)
    _, squared = discriminate_with_gradient(Quadratic(), x, first)
    assert torch.autograd.grad(squared.sum(), x, allow_unused=True)[0] is None


def discriminator(family: str, side: int) -> nn.Module:
    settings = NetworkSettings(family=family, widths=[4, 6], base_width=8)
    network = build_discriminator(settings, 5, (2, side, side), HEADS)
    initialize(network, 1, "discriminator")
    return network


def parameter_gradients(loss: Tensor, network: nn.Module) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, list(network.parameters()))
