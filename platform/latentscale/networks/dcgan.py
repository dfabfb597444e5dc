"""DCGAN (Radford et al. 2016), the backbone of InvGAN on MNIST.

All layers use equalised learning rates. The generator has group norm in place of batch norm, the discriminator none.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentscale.networks.discriminator_output import DiscriminatorOutput, Heads
from latentscale.networks.layers import DiscriminatorHeads, EqualizedLinear, leaky_relu
from latentscale.networks.normalisation import GroupNorm, group_count


class EqualizedStridedConv2d(nn.Module):
    """A 4×4 convolution with stride 2, ``[b, in, n, n]`` -> ``[b, out, n/2, n/2]``; transposed, to ``2n``.

    The fan_in is that of one output pixel: 16·in_channels, or 4·in_channels if transposed.
    """

    def __init__(self, in_channels: int, out_channels: int, transposed: bool = False) -> None:
        super().__init__()
        shape = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        self.weight = nn.Parameter(torch.zeros(*shape, 4, 4))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.multiplier = 1.0 / math.sqrt(in_channels * (4 if transposed else 16))
        self.transposed = transposed

    def forward(self, x: Tensor) -> Tensor:
        """``[b, out_channels, n/2, n/2]``, or ``[b, out_channels, 2n, 2n]`` if transposed."""
        convolution = F.conv_transpose2d if self.transposed else F.conv2d
        return convolution(x, self.weight * self.multiplier, self.bias, stride=2, padding=1)


class DCGANGenerator(nn.Module):
    """``[b, d]`` -> ``[b, channels, base·2ⁿ, base·2ⁿ]``: dense, then n transposed 4×4 convolutions.

    Group norm and lrelu follow every layer but the last.

    Args:
        latent_dim: width of the latent, z or w.
        channels: of the image.
        widths: channels of the n feature maps, from half the image's resolution down to the smallest.
        base_size: height and width of the smallest map, 4 or 7.
    """

    def __init__(self, latent_dim: int, channels: int, widths: list[int], base_size: int) -> None:
        super().__init__()
        self.base = (widths[-1], base_size, base_size)
        self.project = EqualizedLinear(latent_dim, math.prod(self.base))
        self.norms = nn.ModuleList(GroupNorm(width, group_count(width)) for width in reversed(widths))
        afters = [*widths[-2::-1], channels]
        self.ups = nn.ModuleList(
            EqualizedStridedConv2d(before, after, transposed=True)
            for before, after in zip(reversed(widths), afters, strict=True)
        )

    def forward(self, latent: Tensor) -> Tensor:
        """The image, without an output activation."""
        x = self.project(latent).unflatten(1, self.base)
        for norm, up in zip(self.norms, self.ups, strict=True):
            x = up(leaky_relu(norm(x)))
        return x


class DCGANDiscriminator(nn.Module):
    """``[b, channels, base·2ⁿ, base·2ⁿ]`` -> `DiscriminatorOutput`: n 4×4 convolutions with stride 2 and lrelu.

    F is the flattened last map. The heads are applied to F.

    Args:
        channels: of the image.
        widths, base_size: as for the generator.
        heads: see `Heads`.
    """

    def __init__(self, channels: int, widths: list[int], base_size: int, heads: Heads) -> None:
        super().__init__()
        self.downs = nn.ModuleList(
            EqualizedStridedConv2d(before, after)
            for before, after in zip([channels, *widths[:-1]], widths, strict=True)
        )
        self.heads = DiscriminatorHeads(widths[-1] * base_size**2, heads)

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        """One forward pass over ``[b, channels, h, w]``."""
        for down in self.downs:
            x = leaky_relu(down(x))
        features = x.flatten(1)
        return self.heads(features, features)
