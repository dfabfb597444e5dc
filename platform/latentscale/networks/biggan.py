"""BigGAN-like residual networks (Brock et al. 2019) as InvGAN's and PVDGAN's backbone for patches.

Equalised; the class-conditional batch norm of BigGAN's generator is here a group norm whose scale and shift are
affine maps of the latent, and the discriminator has no norm. Where BigGAN sums D's last map over space, here it is
flattened, since an encoder needs to know where things are.
"""

import math
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from latentscale.networks.layers import DiscriminatorHeads, EqualizedConv2d, EqualizedLinear, leaky_relu
from latentscale.networks.normalisation import GroupNorm, group_count, standardised
from latentscale.networks.outputs import Discrimination, Heads

_HALF_VARIANCE = 1.0 / math.sqrt(2.0)


class LatentNorm(nn.Module):
    """Group norm, then ``(1 + a(w))·x + b(w)`` per channel, a and b affine.

    Args:
        channels: of ``[b, channels, h, w]``.
        latent_dim: of w.
    """

    def __init__(self, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.groups = group_count(channels)
        self.affine = EqualizedLinear(latent_dim, 2 * channels)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """``[b, channels, h, w]``."""
        scale, shift = self.affine(latent)[:, :, None, None].chunk(2, dim=1)
        return standardised(x, self.groups) * (1 + scale) + shift


class UpBlock(nn.Module):
    """``(1×1 skip of nearest ×2 + [norm lrelu, nearest ×2, conv3, norm lrelu, conv3]) / √2``.

    Args:
        in_channels, out_channels: see above.
        latent_dim: of what sets the norms.
    """

    def __init__(self, in_channels: int, out_channels: int, latent_dim: int) -> None:
        super().__init__()
        self.norm1 = LatentNorm(in_channels, latent_dim)
        self.conv1 = EqualizedConv2d(in_channels, out_channels, 3)
        self.norm2 = LatentNorm(out_channels, latent_dim)
        self.conv2 = EqualizedConv2d(out_channels, out_channels, 3, gain=_HALF_VARIANCE)
        self.skip = EqualizedConv2d(in_channels, out_channels, 1, bias=False, gain=_HALF_VARIANCE)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """``[b, in_channels, n, n]`` -> ``[b, out_channels, 2n, 2n]``."""
        body = self.conv1(_double(leaky_relu(self.norm1(x, latent))))
        body = self.conv2(leaky_relu(self.norm2(body, latent)))
        # a 1×1 convolution is the same before the doubling, and cheaper
        return body + _double(self.skip(x))


class DownBlock(nn.Module):
    """``(1×1 skip + [lrelu conv3, lrelu conv3]) / √2``, then the mean of 2×2; the first block has no first lrelu.

    Args:
        in_channels, out_channels: see above.
        first: whether the input is the image.
    """

    def __init__(self, in_channels: int, out_channels: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.conv1 = EqualizedConv2d(in_channels, out_channels, 3)
        self.conv2 = EqualizedConv2d(out_channels, out_channels, 3, gain=_HALF_VARIANCE)
        self.skip = EqualizedConv2d(in_channels, out_channels, 1, bias=False, gain=_HALF_VARIANCE)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, in_channels, n, n]`` -> ``[b, out_channels, n/2, n/2]``."""
        # a fresh tensor: the skip still needs x as it is
        active = x if self.first else F.leaky_relu(x, 0.2)
        body = self.conv2(leaky_relu(self.conv1(active)))
        return F.avg_pool2d(body, 2) + self.skip(F.avg_pool2d(x, 2))


class BigGANGenerator(nn.Module):
    """``[b, d]`` -> ``[b, channels, 4·2ⁿ, 4·2ⁿ]``: dense to 4², n blocks that all see the latent; norm lrelu conv3.

    Args:
        latent_dim: d_z, or that of w.
        channels: of the image.
        widths: one per ×2 step, from the image's resolution downwards.
        base_width: width at 4².
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
        """The image, not squashed."""
        x = self.project(latent).unflatten(1, (self.base_width, 4, 4))
        for block in self.blocks:
            x = block(x, latent)
        image: Tensor = self.to_image(leaky_relu(self.norm(x)))
        return image


class BigGANDiscriminator(nn.Module):
    """``[b, channels, 4·2ⁿ, 4·2ⁿ]`` -> `Discrimination`: n blocks, lrelu, flatten; F is that, the heads straight on it.

    Args:
        channels: of the image.
        widths, base_width: as the generator's.
        heads: see `Heads`.
    """

    def __init__(self, channels: int, widths: list[int], base_width: int, heads: Heads) -> None:
        super().__init__()
        chain = [channels, *widths[:-1], base_width]
        self.blocks = nn.ModuleList(
            DownBlock(before, after, first=index == 0) for index, (before, after) in enumerate(pairwise(chain))
        )
        self.heads = DiscriminatorHeads(base_width * 16, heads)

    def forward(self, x: Tensor) -> Discrimination:
        """One pass over ``[b, channels, h, w]``."""
        for block in self.blocks:
            x = block(x)
        features = leaky_relu(x).flatten(1)
        return self.heads(features, features)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
