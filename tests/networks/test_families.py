"""Each family against a literal implementation of its published description, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentscale.networks.discriminator_output import Heads
from latentscale.networks.factory import NetworkSettings, build_discriminator, build_generator
from latentscale.networks.initialisation import initialize

LATENT = 6
HEADS = Heads(adversarial=1, latent=LATENT, log_variance=LATENT)
Weights = dict[str, Tensor]


def settings(family: str) -> NetworkSettings:
    return NetworkSettings(family=family, widths=[3, 4, 5], base_width=7)


def built(family: str, side: int, channels: int = 3) -> tuple[nn.Module, nn.Module]:
    shape = (channels, side, side)
    networks = (
        build_generator(settings(family), LATENT, shape).double(),
        build_discriminator(settings(family), LATENT, shape, HEADS).double(),
    )
    for network in networks:
        initialize(network, 1, type(network).__name__)
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):  # zeros would hide a misplaced bias
                parameter.data.copy_(noise(*parameter.shape))
    return networks


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def lrelu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def dense(x: Tensor, weights: Weights, name: str) -> Tensor:
    weight = weights[name + ".weight"]
    return x @ weight.t() / math.sqrt(weight.shape[1]) + weights.get(name + ".bias", torch.tensor(0.0).double())


def conv(x: Tensor, weights: Weights, name: str) -> Tensor:
    weight = weights[name + ".weight"]
    bias = weights.get(name + ".bias")
    return F.conv2d(x, weight / math.sqrt(weight[0].numel()), bias, padding=weight.shape[2] // 2)


def taps(channels: int) -> Tensor:
    one = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
    return (torch.outer(one, one) / 64).expand(channels, 1, 4, 4)


def blur_up(x: Tensor) -> Tensor:
    return F.conv_transpose2d(x, 4 * taps(x.shape[1]), stride=2, padding=1, groups=x.shape[1])


def blur_down(x: Tensor) -> Tensor:
    return F.conv2d(x, taps(x.shape[1]), stride=2, padding=1, groups=x.shape[1])


def blur_same(x: Tensor) -> Tensor:
    return F.conv2d(F.pad(x, (1, 2, 1, 2)), taps(x.shape[1]), groups=x.shape[1])


def shifts(weight: Tensor) -> Tensor:
    wide = F.pad(weight, (1, 1, 1, 1))
    return wide[..., 1:, 1:] + wide[..., :-1, 1:] + wide[..., 1:, :-1] + wide[..., :-1, :-1]


def up_conv(x: Tensor, weights: Weights, name: str) -> Tensor:
    weight = weights[name + ".weight"]
    kernel = shifts(weight / math.sqrt(9 * weight.shape[0]))
    return blur_same(F.conv_transpose2d(x, kernel, stride=2, padding=1)) + weights[name + ".bias"][:, None, None]


def down_conv(x: Tensor, weights: Weights, name: str) -> Tensor:
    weight = weights[name + ".weight"]
    kernel = shifts(weight / math.sqrt(9 * weight.shape[1])) / 4
    return F.conv2d(blur_same(x), kernel, stride=2, padding=1)


def residual_block(x: Tensor, weights: Weights, name: str) -> Tensor:
    body = lrelu(conv(lrelu(conv(x, weights, name + ".conv1")), weights, name + ".conv2"))
    return (conv(x, weights, name + ".skip") + body) / math.sqrt(2)


def residual_generator(z: Tensor, weights: Weights, steps: int) -> Tensor:
    x = dense(z, weights, "project").reshape(-1, 7, 4, 4) + weights["base_bias"][:, None, None]
    x = lrelu(x)
    for step in range(steps):
        x = residual_block(blur_up(x), weights, f"blocks.{step}")
    return conv(x, weights, "to_image")


def residual_features(x: Tensor, weights: Weights, steps: int) -> tuple[Tensor, Tensor]:
    x = lrelu(conv(x, weights, "from_image"))
    for step in range(steps):
        x = blur_down(residual_block(x, weights, f"blocks.{step}"))
    return x.flatten(1), x.flatten(1)


def skip_generator(z: Tensor, weights: Weights, steps: int) -> Tensor:
    x = lrelu(dense(lrelu(dense(z, weights, "hidden")), weights, "project")).reshape(-1, 7, 4, 4)
    image = conv(x, weights, "to_image")
    for step in range(steps):
        name = f"steps.{step}"
        x = lrelu(up_conv(x, weights, name + ".conv1"))
        x = lrelu(conv(x, weights, name + ".conv2"))
        image = blur_up(image) + conv(x, weights, name + ".to_image")
    return image + weights["image_bias"][:, None, None]


def skip_features(x: Tensor, weights: Weights, steps: int) -> tuple[Tensor, Tensor]:
    image, x = x, lrelu(conv(x, weights, "from_image"))
    for step in range(steps):
        name = f"steps.{step}"
        image = blur_down(image)
        x = down_conv(lrelu(conv(x, weights, name + ".conv1")), weights, name + ".conv2")
        x = (x + conv(image, weights, name + ".from_image")) / math.sqrt(2)
        x = lrelu(x + weights[name + ".bias"][:, None, None])
    return x.flatten(1), lrelu(dense(x.flatten(1), weights, "hidden"))


def mlp_generator(z: Tensor, weights: Weights, steps: int) -> Tensor:
    for layer in range(3):
        z = lrelu(dense(z, weights, f"layers.{layer}"))
    side = 4 * 2**steps
    return dense(z, weights, "to_sample").reshape(-1, 3, side, side)


def mlp_features(x: Tensor, weights: Weights, steps: int) -> tuple[Tensor, Tensor]:
    x = x.flatten(1)
    for layer in range(3):
        x = lrelu(dense(x, weights, f"layers.{layer}"))
    return x, x


LITERAL = {
    "residual": (residual_generator, residual_features),
    "skip": (skip_generator, skip_features),
    "mlp": (mlp_generator, mlp_features),
}


@pytest.mark.parametrize("family", LITERAL)
@pytest.mark.parametrize("side", [8, 32, 64])
def test_generator_as_published(family: str, side: int) -> None:
    generator, _ = built(family, side)
    z = noise(2, LATENT)
    expected = LITERAL[family][0](z, dict(generator.named_parameters()), side.bit_length() - 3)
    image = generator(z)
    assert image.shape == (2, 3, side, side)
    torch.testing.assert_close(image, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("family", LITERAL)
@pytest.mark.parametrize("side", [8, 32, 64])
def test_discriminator_as_published(family: str, side: int) -> None:
    _, discriminator = built(family, side)
    weights = dict(discriminator.named_parameters())
    x = noise(2, 3, side, side)
    features, below_heads = LITERAL[family][1](x, weights, side.bit_length() - 3)
    seen = discriminator(x)
    torch.testing.assert_close(seen.features, features, rtol=1e-11, atol=1e-12)
    for name in ("adversarial", "latent", "log_variance"):
        expected = dense(below_heads, weights, f"heads.{name}")
        torch.testing.assert_close(getattr(seen, name), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("family", LITERAL)
@pytest.mark.parametrize("channels", [1, 4])
def test_any_channel_count(family: str, channels: int) -> None:
    generator, discriminator = built(family, 16, channels)
    seen = discriminator(generator(noise(3, LATENT)))
    assert [tuple(part.shape) for part in seen[:3]] == [(3, 1), (3, LATENT), (3, LATENT)]


@pytest.mark.parametrize("family", LITERAL)
def test_samples_do_not_see_each_other_and_forward_changes_no_state(family: str) -> None:
    generator, discriminator = built(family, 16)
    before = [{k: v.clone() for k, v in network.state_dict().items()} for network in (generator, discriminator)]
    z = noise(4, LATENT)
    together = discriminator(generator(z))
    alone = [discriminator(generator(z[i : i + 1])) for i in range(4)]
    torch.testing.assert_close(together.latent, torch.cat([part.latent for part in alone]), rtol=1e-11, atol=1e-12)
    for state, network in zip(before, (generator, discriminator), strict=True):
        assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("family", LITERAL)
def test_the_input_is_not_written_over(family: str) -> None:
    generator, discriminator = built(family, 8)
    z, x = noise(2, LATENT), noise(2, 3, 8, 8)
    kept = z.clone(), x.clone()
    generator(z)
    discriminator(x)
    assert torch.equal(z, kept[0])
    assert torch.equal(x, kept[1])


@pytest.mark.parametrize("family", LITERAL)
def test_every_parameter_receives_a_gradient(family: str) -> None:
    generator, discriminator = built(family, 32)
    parameters = [*generator.parameters(), *discriminator.parameters()]
    seen = discriminator(generator(noise(2, LATENT)))
    gradients = torch.autograd.grad(sum(part.square().sum() for part in seen if part is not None), parameters)
    assert all(bool(gradient.abs().sum() > 0) for gradient in gradients)


@pytest.mark.slow
@pytest.mark.parametrize("family", LITERAL)
def test_generator_compiles_full_graph(family: str) -> None:
    torch._dynamo.reset()
    generator, _ = built(family, 16)
    z = noise(2, LATENT)
    compiled = torch.compile(generator, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z), generator(z), rtol=1e-12, atol=1e-13)
    ours = torch.autograd.grad(compiled(z).square().sum(), list(generator.parameters()))
    theirs = torch.autograd.grad(generator(z).square().sum(), list(generator.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
