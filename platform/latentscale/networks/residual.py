"""The residual networks of PVDGAN and VAEGAN (Cho 2025, §4.4).

A block of width w changes its input's channels to w in its first convolution and in its 1×1 skip, and keeps w in the
second convolution. Only this reading gives the published parameter counts of 25.8 M and 31.7 M (25.83 M and 31.65 M,
with a log-variance head, at d_z 1024).

The channels at 4² are a setting of their own, ``base_width``. The generator's first block starts from it, and the
discriminator's last block reaches it in its second convolution. As published, it equals the last width.
"""

import math

import torch
from torch import Tensor, nn

from latentscale.networks.blur import Blur
from latentscale.networks.discriminator_output import DiscriminatorOutput, Heads
from latentscale.networks.layers import DiscriminatorHeads, EqualizedConv2d, EqualizedLinear, leaky_relu

_INV_SQRT_2 = 1.0 / math.sqrt(2.0)


class ResidualBlock(nn.Module):
    """``([1×1 skip without bias] + [conv3 lrelu, conv3 lrelu]) / √2``, at the input's size.

    Args:
        in_channels, mid_channels, out_channels: channels before, between and after the two convolutions.
    """

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip = EqualizedConv2d(in_channels, out_channels, 1, bias=False, gain=_INV_SQRT_2)
        self.conv1 = EqualizedConv2d(in_channels, mid_channels, 3)
        self.conv2 = EqualizedConv2d(mid_channels, out_channels, 3, gain=_INV_SQRT_2)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, in_channels, n, n]`` -> ``[b, out_channels, n, n]``."""
        return self.skip(x) + leaky_relu(self.conv2(leaky_relu(self.conv1(x))))


class ResidualGenerator(nn.Module):
    """``[b, d_z]`` -> ``[b, channels, 4·2ⁿ, 4·2ⁿ]`` with n widths: dense to 4²; per width blur-up, a block; then 1×1.

    Args:
        latent_dim: d_z.
        channels: of the image.
        widths: one per block, from the image's resolution downwards.
        base_width: channels at 4².
    """

    def __init__(self, latent_dim: int, channels: int, widths: list[int], base_width: int) -> None:
        super().__init__()
        self.base_width = base_width
        self.project = EqualizedLinear(latent_dim, base_width * 16, bias=False)
        self.base_bias = nn.Parameter(torch.zeros(base_width))
        self.blurs = nn.ModuleList()
        self.blocks = nn.ModuleList()
        width, size = base_width, 4
        for next_width in reversed(widths):
            self.blurs.append(Blur("up", size))
            self.blocks.append(ResidualBlock(width, next_width, next_width))
            width, size = next_width, 2 * size
        self.to_image = EqualizedConv2d(width, channels, 1)

    def forward(self, latent: Tensor) -> Tensor:
        """The image, without an output activation."""
        x = self.project(latent).unflatten(1, (self.base_width, 4, 4))
        x = leaky_relu(x + self.base_bias[:, None, None])
        for blur, block in zip(self.blurs, self.blocks, strict=True):
            x = block(blur(x))
        return self.to_image(x)


class ResidualDiscriminator(nn.Module):
    """``[b, channels, 4·2ⁿ, 4·2ⁿ]`` -> `DiscriminatorOutput` with n widths; F is the flattened 4² map.

    Args:
        channels: of the image.
        widths, base_width: as for the generator.
        heads: applied to F; see `Heads`.
    """

    def __init__(self, channels: int, widths: list[int], base_width: int, heads: Heads) -> None:
        super().__init__()
        self.from_image = EqualizedConv2d(channels, widths[0], 1)
        self.blocks = nn.ModuleList()
        self.blurs = nn.ModuleList()
        width, size = widths[0], 4 * 2 ** len(widths)
        for mid_width, next_width in zip(widths, [*widths[:-1], base_width], strict=True):
            self.blocks.append(ResidualBlock(width, mid_width, next_width))
            self.blurs.append(Blur("down", size))
            width, size = next_width, size // 2
        self.heads = DiscriminatorHeads(base_width * 16, heads)

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        """One forward pass over ``[b, channels, h, w]``."""
        x = leaky_relu(self.from_image(x))
        for block, blur in zip(self.blocks, self.blurs, strict=True):
            x = blur(block(x))
        features = x.flatten(1)
        return self.heads(features, features)
