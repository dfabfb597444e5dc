"""Equalised layers: fan_in, gains, and the fused resampling convolutions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentscale.networks.discriminator_output import Heads
from latentscale.networks.layers import (
    DiscriminatorHeads,
    EqualizedConv2d,
    EqualizedDownConv2d,
    EqualizedLinear,
    EqualizedUpConv2d,
    leaky_relu,
)

GENERATOR = torch.Generator().manual_seed(0)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


def randomized(layer: nn.Module) -> nn.Module:
    layer.double()
    for parameter in layer.parameters():
        parameter.data.copy_(noise(*parameter.shape))
    return layer


def test_linear_by_hand() -> None:
    layer = EqualizedLinear(4, 1).double()
    layer.weight.data.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    layer.bias.data.fill_(0.5)
    # (1 + 2 + 3 + 4)/√4 + ½; the bias is not scaled
    assert layer(torch.ones(1, 4).double()).item() == pytest.approx(5.5)


@pytest.mark.parametrize("batch", [1, 200])
def test_equalised_at_any_batch_size(batch: int) -> None:
    # one batch is smaller than the weights, the other larger: the layer multiplies the smaller of the two
    linear, x = randomized(EqualizedLinear(6, 10)), noise(batch, 6)
    torch.testing.assert_close(linear(x), F.linear(x, linear.weight / math.sqrt(6), linear.bias))
    conv, x = randomized(EqualizedConv2d(6, 20, 3)), noise(batch, 6, 4, 4)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight / math.sqrt(54), conv.bias, padding=1))
    point = randomized(EqualizedConv2d(6, 20, 1, bias=False))
    torch.testing.assert_close(point(x), F.conv2d(x, point.weight / math.sqrt(6)))


def test_unit_weights_keep_unit_variance() -> None:
    x = noise(64, 48, 8, 8)
    for layer in (
        EqualizedConv2d(48, 64, 3, bias=False),
        EqualizedConv2d(48, 64, 1, bias=False),
    ):
        out = randomized(layer)(x)[:, :, 1:-1, 1:-1]
        assert float(out.detach().square().mean()) == pytest.approx(1.0, rel=0.1)


def test_a_gain_passes_through_the_leaky_relu() -> None:
    plain, gained = EqualizedConv2d(3, 5, 3), EqualizedConv2d(3, 5, 3, gain=1 / math.sqrt(2))
    randomized(plain)
    gained.double().load_state_dict(plain.state_dict())
    x = noise(2, 3, 4, 4)
    torch.testing.assert_close(leaky_relu(gained(x)), leaky_relu(plain(x)) / math.sqrt(2))


def shifted(weight: Tensor) -> Tensor:
    """The sum of the four one-pixel shifts of 3×3 kernels."""
    return sum(F.pad(weight, (left, 1 - left, top, 1 - top)) for left in (0, 1) for top in (0, 1))  # type: ignore[return-value]


def same_blur(x: Tensor) -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
    kernel = (torch.outer(taps, taps) / 64).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(x, (1, 2, 1, 2)), kernel, groups=x.shape[1])


@pytest.mark.parametrize("size", [4, 16])
def test_up_convolution(size: int) -> None:
    layer, x = randomized(EqualizedUpConv2d(3, 5, size)), noise(2, 3, size, size)
    out = layer(x)
    weight = layer.weight / math.sqrt(27)
    expected = same_blur(F.conv_transpose2d(x, shifted(weight), stride=2, padding=1)) + layer.bias[:, None, None]
    torch.testing.assert_close(out, expected)
    # equivalently: repeat every pixel 2×2, then convolve with the flipped kernel
    repeated = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    flipped = weight.transpose(0, 1).flip(2, 3)
    torch.testing.assert_close(out, same_blur(F.conv2d(repeated, flipped, padding=1)) + layer.bias[:, None, None])


@pytest.mark.parametrize("size", [8, 16])
def test_down_convolution(size: int) -> None:
    layer, x = randomized(EqualizedDownConv2d(3, 5, size, gain=0.5)), noise(2, 3, size, size)
    bias = noise(5)
    out = layer(x, bias)
    weight = 0.5 * layer.weight / math.sqrt(27)
    expected = F.conv2d(same_blur(x), shifted(weight) / 4, bias, stride=2, padding=1)
    torch.testing.assert_close(out, expected)
    # equivalently: convolve the blurred map, then average 2×2 pixels
    averaged = F.avg_pool2d(F.conv2d(same_blur(x), weight, padding=1), 2) + bias[:, None, None]
    torch.testing.assert_close(out, averaged)


def test_heads_of_width_zero_are_not_built() -> None:
    heads = DiscriminatorHeads(8, Heads(adversarial=3))
    assert set(heads.state_dict()) == {"adversarial.weight", "adversarial.bias"}
    seen = heads(torch.zeros(2, 8), torch.zeros(2, 9))
    assert seen.adversarial.shape == (2, 3)
    assert seen.latent is None
    assert seen.log_variance is None
    assert seen.features.shape == (2, 9)


def test_an_encoder_has_no_adversarial_head() -> None:
    heads = DiscriminatorHeads(8, Heads(adversarial=0, latent=4))
    assert set(heads.state_dict()) == {"latent.weight", "latent.bias"}
    assert heads(torch.zeros(2, 8), torch.zeros(2, 8)).adversarial.shape == (2, 0)
