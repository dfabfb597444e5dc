"""The DCGAN-like networks of the latent recovery paper (Cho 2020, §8.1): plain layers, instance norm, tanh.

The layers have no equalised learning rates. Weights start with Glorot's deviation √(2/(fan_in + fan_out)) (Glorot and
Bengio 2010), drawn from a normal distribution where Keras draws from a uniform one. As in the paper, convolutions
before a norm have no bias.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentscale.networks.discriminator_output import DiscriminatorOutput, Heads
from latentscale.networks.layers import DiscriminatorHeads, leaky_relu
from latentscale.networks.normalisation import GroupNorm

_CONVS_PER_BLOCK = 3
"""Convolutions of a block; the discriminator's first block has only one."""


class Linear(nn.Module):
    """``x @ weightᵀ + bias``: ``[b, in_features]`` -> ``[b, out_features]``."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.initial_deviation = math.sqrt(2.0 / (in_features + out_features))

    def forward(self, x: Tensor) -> Tensor:
        """``[b, out_features]``."""
        return F.linear(x, self.weight, self.bias)


class Conv2d(nn.Module):
    """A convolution that keeps the size, ``[b, in_channels, h, w]`` -> ``[b, out_channels, h, w]``, zero padded."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.initial_deviation = math.sqrt(2.0 / ((in_channels + out_channels) * kernel_size**2))
        self.padding = kernel_size // 2

    def forward(self, x: Tensor) -> Tensor:
        """``[b, out_channels, h, w]``."""
        return F.conv2d(x, self.weight, self.bias, padding=self.padding)


class ConvNormBlock(nn.Module):
    """``count`` times conv3 lrelu, instance norm, all with ``width`` output channels."""

    def __init__(self, in_channels: int, width: int, count: int = _CONVS_PER_BLOCK) -> None:
        super().__init__()
        befores = [in_channels, *[width] * (count - 1)]
        self.convs = nn.ModuleList(Conv2d(before, width, 3, bias=False) for before in befores)
        self.norms = nn.ModuleList(GroupNorm(width, width) for _ in befores)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, in_channels, n, n]`` -> ``[b, width, n, n]``."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(leaky_relu(conv(x)))
        return x


class RecoveryGenerator(nn.Module):
    """``[b, d_z]`` -> ``[b, channels, base·2ⁿ, base·2ⁿ]`` in (-1, 1).

    Dense lrelu, instance norm; per width nearest ×2 upsampling, three conv3 lrelu with instance norm; 1×1, tanh.

    Args:
        latent_dim: d_z.
        channels: of the image.
        widths: one per block, from the image's resolution downwards; published: 128, 256.
        base_width: channels of the smallest map; published: 512.
        base_size: height and width of the smallest map; published: 7.
    """

    def __init__(self, latent_dim: int, channels: int, widths: list[int], base_width: int, base_size: int) -> None:
        super().__init__()
        self.base = (base_width, base_size, base_size)
        self.project = Linear(latent_dim, math.prod(self.base))
        self.norm = GroupNorm(base_width, base_width)
        befores = [base_width, *widths[:0:-1]]
        self.steps = nn.ModuleList(
            ConvNormBlock(before, width) for before, width in zip(befores, reversed(widths), strict=True)
        )
        self.to_image = Conv2d(widths[0], channels, 1, bias=True)

    def forward(self, latent: Tensor) -> Tensor:
        """The image in (-1, 1)."""
        x = self.norm(leaky_relu(self.project(latent)).unflatten(1, self.base))
        for step in self.steps:
            x = step(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        image: Tensor = self.to_image(x)
        return image.tanh()


class RecoveryDiscriminator(nn.Module):
    """``[b, channels, base·2ⁿ, base·2ⁿ]`` -> `DiscriminatorOutput`.

    One conv3 lrelu with instance norm at the image's size; then per width 2×2 average pooling and three conv3 lrelu
    with instance norm. F is the flattened last map. The heads are applied to F.

    Args:
        channels: of the image.
        widths, base_width, base_size: as for the generator.
        heads: see `Heads`.
    """

    def __init__(self, channels: int, widths: list[int], base_width: int, base_size: int, heads: Heads) -> None:
        super().__init__()
        self.from_image = ConvNormBlock(channels, widths[0], count=1)
        self.steps = nn.ModuleList(
            ConvNormBlock(before, width) for before, width in zip(widths, [*widths[1:], base_width], strict=True)
        )
        self.heads = DiscriminatorHeads(base_width * base_size**2, heads, Linear)

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        """One forward pass over ``[b, channels, h, w]``."""
        x = self.from_image(x)
        for step in self.steps:
            x = step(F.avg_pool2d(x, 2))
        features = x.flatten(1)
        return self.heads(features, features)
