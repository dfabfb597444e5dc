"""BigGAN-like residual networks (Brock et al. 2019), the backbone of InvGAN and PVDGAN for image patches.

They differ from BigGAN in three ways. All layers use equalised learning rates. The generator replaces
class-conditional batch norm by a group norm whose scale and shift are affine functions of the latent, and the
discriminator has no norm. The discriminator flattens its last feature map instead of summing it over space, because
an encoder must know where things are.
"""

import math
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from latentscale.networks.discriminator_output import DiscriminatorOutput, Heads
from latentscale.networks.layers import DiscriminatorHeads, EqualizedConv2d, EqualizedLinear, leaky_relu
from latentscale.networks.normalisation import GroupNorm, group_count, normalise_groups

_INV_SQRT_2 = 1.0 / math.sqrt(2.0)


class AdaptiveGroupNorm(nn.Module):
    """Group norm, then ``(1 + a(w))·x + b(w)`` per channel, where a and b are affine.

    Args:
        channels: of ``[b, channels, h, w]``.
        latent_dim: width of the latent w.
    """

    def __init__(self, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.groups = group_count(channels)
        self.affine = EqualizedLinear(latent_dim, 2 * channels)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """``[b, channels, h, w]``."""
        scale, shift = self.affine(latent)[:, :, None, None].chunk(2, dim=1)
        return normalise_groups(x, self.groups) * (1 + scale) + shift


class UpBlock(nn.Module):
    """``(1×1 skip of nearest ×2 + [norm lrelu, nearest ×2, conv3, norm lrelu, conv3]) / √2``.

    Args:
        in_channels, out_channels: channels of the input and the output.
        latent_dim: width of the latent that sets the norms' scales and shifts.
    """

    def __init__(self, in_channels: int, out_channels: int, latent_dim: int) -> None:
        super().__init__()
        self.norm1 = AdaptiveGroupNorm(in_channels, latent_dim)
        self.conv1 = EqualizedConv2d(in_channels, out_channels, 3)
        self.norm2 = AdaptiveGroupNorm(out_channels, latent_dim)
        self.conv2 = EqualizedConv2d(out_channels, out_channels, 3, gain=_INV_SQRT_2)
        self.skip = EqualizedConv2d(in_channels, out_channels, 1, bias=False, gain=_INV_SQRT_2)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """``[b, in_channels, n, n]`` -> ``[b, out_channels, 2n, 2n]``."""
        body = self.conv1(_upsample(leaky_relu(self.norm1(x, latent))))
        body = self.conv2(leaky_relu(self.norm2(body, latent)))
        # a 1×1 convolution commutes with the upsampling, and is cheaper before it
        return body + _upsample(self.skip(x))


class DownBlock(nn.Module):
    """``(1×1 skip + [lrelu conv3, lrelu conv3]) / √2``, then 2×2 average pooling.

    Args:
        in_channels, out_channels: channels of the input and the output.
        first: whether the input is the image, which goes into the first convolution without a leaky ReLU.
    """

    def __init__(self, in_channels: int, out_channels: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.conv1 = EqualizedConv2d(in_channels, out_channels, 3)
        self.conv2 = EqualizedConv2d(out_channels, out_channels, 3, gain=_INV_SQRT_2)
        self.skip = EqualizedConv2d(in_channels, out_channels, 1, bias=False, gain=_INV_SQRT_2)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, in_channels, n, n]`` -> ``[b, out_channels, n/2, n/2]``."""
        # not in place: the skip still needs x unchanged
        active = x if self.first else F.leaky_relu(x, 0.2)
        body = self.conv2(leaky_relu(self.conv1(active)))
        return F.avg_pool2d(body, 2) + self.skip(F.avg_pool2d(x, 2))


class BigGANGenerator(nn.Module):
    """``[b, d]`` -> ``[b, channels, 4·2ⁿ, 4·2ⁿ]``: dense to 4², n blocks that all take the latent, norm lrelu conv3.

    Args:
        latent_dim: width of the latent, z or w.
        channels: of the image.
        widths: one per block, from the image's resolution downwards.
        base_width: channels at 4².
    """

    def __init__(self, latent_dim: int, channels: int, widths: list[int], base_width: int) -> None:
        super().__init__()
        self.base_width = base_width
        self.project = EqualizedLinear(latent_dim, base_width * 16)
        befores = [base_width, *widths[:0:-1]]
        self.blocks = nn.ModuleList(
            UpBlock(before, width, latent_dim) for before, width in zip(befores, reversed(widths), strict=True)
        )
        self.norm = GroupNorm(widths[0], group_count(widths[0]))
        self.to_image = EqualizedConv2d(widths[0], channels, 3)

    def forward(self, latent: Tensor) -> Tensor:
        """The image, without an output activation."""
        x = self.project(latent).unflatten(1, (self.base_width, 4, 4))
        for block in self.blocks:
            x = block(x, latent)
        image: Tensor = self.to_image(leaky_relu(self.norm(x)))
        return image


class BigGANDiscriminator(nn.Module):
    """``[b, channels, 4·2ⁿ, 4·2ⁿ]`` -> `DiscriminatorOutput`: n blocks, lrelu, flatten to F, heads on F.

    Args:
        channels: of the image.
        widths, base_width: as for the generator.
        heads: see `Heads`.
    """

    def __init__(self, channels: int, widths: list[int], base_width: int, heads: Heads) -> None:
        super().__init__()
        chain = [channels, *widths[:-1], base_width]
        self.blocks = nn.ModuleList(
            DownBlock(before, after, first=index == 0) for index, (before, after) in enumerate(pairwise(chain))
        )
        self.heads = DiscriminatorHeads(base_width * 16, heads)

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        """One forward pass over ``[b, channels, h, w]``."""
        for block in self.blocks:
            x = block(x)
        features = leaky_relu(x).flatten(1)
        return self.heads(features, features)


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
