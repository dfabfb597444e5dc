"""The input- and output-skip networks of DLSGAN and AEDLSGAN (Cho 2025, §4.2.1).

A block of width w changes its input's channels to w in its first convolution and keeps w in the second. Only this
reading gives the published parameter counts of 35.4 M and 35.2 M (33.1 M without a log-variance head) at d_z 1024.

The channels at 4² are a setting of their own, ``base_width``. The generator's first block starts from it, and the
discriminator's last block reaches it in its down-convolution. As published, it equals the last width.
"""

import math

import torch
from torch import Tensor, nn

from latentscale.networks.blur import Blur
from latentscale.networks.discriminator_output import DiscriminatorOutput, Heads
from latentscale.networks.layers import (
    DiscriminatorHeads,
    EqualizedConv2d,
    EqualizedDownConv2d,
    EqualizedLinear,
    EqualizedUpConv2d,
    leaky_relu,
)

_INV_SQRT_2 = 1.0 / math.sqrt(2.0)


class UpBlock(nn.Module):
    """up-conv3 lrelu, conv3 lrelu on the features; image ← blur-up(image) + 1×1 toRGB(features).

    Args:
        in_channels, out_channels: channels of the features before and after.
        image_channels: channels of the image.
        size: height and width of the input.
    """

    def __init__(self, in_channels: int, out_channels: int, image_channels: int, size: int) -> None:
        super().__init__()
        self.conv1 = EqualizedUpConv2d(in_channels, out_channels, size)
        self.conv2 = EqualizedConv2d(out_channels, out_channels, 3)
        self.to_image = EqualizedConv2d(out_channels, image_channels, 1, bias=False)
        self.blur = Blur("up", size)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features and image at ``size`` -> both at twice the size."""
        x = leaky_relu(self.conv2(leaky_relu(self.conv1(x))))
        return x, self.blur(image) + self.to_image(x)


class DownBlock(nn.Module):
    """lrelu((down-conv3(conv3 lrelu) + 1×1 fromRGB(blur-down(image))) / √2 + bias).

    Args:
        in_channels, mid_channels, out_channels: channels before, between and after the two convolutions.
        image_channels: channels of the image.
        size: height and width of the input.
    """

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, image_channels: int, size: int) -> None:
        super().__init__()
        self.conv1 = EqualizedConv2d(in_channels, mid_channels, 3)
        self.conv2 = EqualizedDownConv2d(mid_channels, out_channels, size, gain=_INV_SQRT_2)
        self.from_image = EqualizedConv2d(image_channels, out_channels, 1, bias=False, gain=_INV_SQRT_2)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.blur = Blur("down", size)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features and input image at ``size`` -> both at half the size."""
        image = self.blur(image)
        x = self.conv2(leaky_relu(self.conv1(x)), self.bias)
        return leaky_relu(x + self.from_image(image)), image


class SkipGenerator(nn.Module):
    """``[b, d_z]`` -> ``[b, channels, 4·2ⁿ, 4·2ⁿ]`` with n widths.

    Args:
        latent_dim: d_z.
        channels: of the image.
        widths: one per block, from the image's resolution downwards.
        base_width: channels at 4².
        hidden_width: of the first dense layer.
    """

    def __init__(self, latent_dim: int, channels: int, widths: list[int], base_width: int, hidden_width: int) -> None:
        super().__init__()
        self.base_width = base_width
        self.hidden = EqualizedLinear(latent_dim, hidden_width)
        self.project = EqualizedLinear(hidden_width, base_width * 16)
        self.to_image = EqualizedConv2d(base_width, channels, 1, bias=False)
        self.steps = nn.ModuleList()
        width, size = base_width, 4
        for next_width in reversed(widths):
            self.steps.append(UpBlock(width, next_width, channels, size))
            width, size = next_width, 2 * size
        self.image_bias = nn.Parameter(torch.zeros(channels))

    def forward(self, latent: Tensor) -> Tensor:
        """The image, without an output activation."""
        x = leaky_relu(self.project(leaky_relu(self.hidden(latent)))).unflatten(1, (self.base_width, 4, 4))
        image = self.to_image(x)
        for step in self.steps:
            x, image = step(x, image)
        return image + self.image_bias[:, None, None]


class SkipDiscriminator(nn.Module):
    """``[b, channels, 4·2ⁿ, 4·2ⁿ]`` -> `DiscriminatorOutput` with n widths; F is the flattened 4² map.

    Args:
        channels: of the image.
        widths, base_width: as for the generator.
        hidden_width: of the dense layer between F and the heads.
        heads: see `Heads`.
    """

    def __init__(self, channels: int, widths: list[int], base_width: int, hidden_width: int, heads: Heads) -> None:
        super().__init__()
        self.from_image = EqualizedConv2d(channels, widths[0], 1)
        self.steps = nn.ModuleList()
        width, size = widths[0], 4 * 2 ** len(widths)
        for mid_width, next_width in zip(widths, [*widths[:-1], base_width], strict=True):
            self.steps.append(DownBlock(width, mid_width, next_width, channels, size))
            width, size = next_width, size // 2
        self.hidden = EqualizedLinear(base_width * 16, hidden_width)
        self.heads = DiscriminatorHeads(hidden_width, heads)

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        """One forward pass over ``[b, channels, h, w]``."""
        image = x
        x = leaky_relu(self.from_image(image))
        for step in self.steps:
            x, image = step(x, image)
        features = x.flatten(1)
        return self.heads(leaky_relu(self.hidden(features)), features)
