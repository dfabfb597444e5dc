"""The StyleGAN-like generator of AnoDLSGAN's CelebA experiments (Cho 2025, §4.3.3).

It has a mapping network, a learned 4×4 constant, modulated convolutions without demodulation and RGB skips that are
upsampled by blur-up; every lrelu is multiplied by √2. Styles are affine functions of w without an added 1, so that
the modulation keeps the variance. InvGAN trains the two halves, mapping and synthesis, as separate networks (Ghosh et
al. 2022, §3.1).

Of the discriminator only "a CNN with skips" is published; `latentscale.networks.residual` takes its place.
"""

import math

import torch
from torch import Tensor, nn

from latentscale.networks.blur import Blur
from latentscale.networks.layers import EqualizedConv2d, EqualizedLinear, EqualizedUpConv2d, leaky_relu
from latentscale.networks.mapping import MappingNetwork

_SQRT_2 = math.sqrt(2.0)


class SynthesisBlock(nn.Module):
    """Modulated up-conv3 and conv3, each lrelu·√2; image ← blur-up(image) + 1×1 toRGB(features).

    Args:
        in_channels, out_channels: channels of the features before and after.
        image_channels: channels of the image.
        style_dim: d_w, the width of w.
        size: height and width of the input.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        image_channels: int,
        style_dim: int,
        size: int,
    ) -> None:
        super().__init__()
        self.style1 = EqualizedLinear(style_dim, in_channels)
        self.conv1 = EqualizedUpConv2d(in_channels, out_channels, size, gain=_SQRT_2)
        self.style2 = EqualizedLinear(style_dim, out_channels)
        self.conv2 = EqualizedConv2d(out_channels, out_channels, 3, gain=_SQRT_2)
        self.to_image = EqualizedConv2d(out_channels, image_channels, 1, bias=False)
        self.blur = Blur("up", size)

    def forward(self, x: Tensor, image: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Features and image at ``size`` -> both at twice the size; ``first``, ``second``: the convolutions' w."""
        # scaling the input channels equals scaling the weights for each sample
        x = leaky_relu(self.conv1(x * self.style1(first)[:, :, None, None]))
        x = leaky_relu(self.conv2(x * self.style2(second)[:, :, None, None]))
        return x, self.blur(image) + self.to_image(x)


class SynthesisNetwork(nn.Module):
    """w ``[b, d_w]``, or one w per convolution ``[b, 2n, d_w]``, -> ``[b, channels, 4·2ⁿ, 4·2ⁿ]``.

    Args:
        style_dim: d_w.
        channels: of the image.
        widths: n widths, one per block, from the image's resolution downwards.
        base_width: channels at 4².

    Attributes:
        style_count: 2n, the number of convolutions that take a style.
    """

    def __init__(self, style_dim: int, channels: int, widths: list[int], base_width: int) -> None:
        super().__init__()
        self.style_count = 2 * len(widths)
        self.constant = nn.Parameter(torch.zeros(base_width, 4, 4))
        self.to_image = EqualizedConv2d(base_width, channels, 1)
        self.steps = nn.ModuleList()
        width, size = base_width, 4
        for next_width in reversed(widths):
            self.steps.append(SynthesisBlock(width, next_width, channels, style_dim, size))
            width, size = next_width, 2 * size

    def forward(self, style: Tensor) -> Tensor:
        """The image, without an output activation."""
        styles = style.unbind(1) if style.dim() == 3 else (style,) * self.style_count
        x = self.constant.expand(len(style), -1, -1, -1)
        image: Tensor = self.to_image(x)
        for index, step in enumerate(self.steps):
            x, image = step(x, image, styles[2 * index], styles[2 * index + 1])
        return image


class StyleGenerator(nn.Module):
    """``z [b, d_z]`` -> ``[b, channels, 4·2ⁿ, 4·2ⁿ]``: `MappingNetwork` to a w as wide as z, then `SynthesisNetwork`.

    Args:
        latent_dim: d_z.
        channels, widths, base_width: as for `SynthesisNetwork`.
        lr_multiplier: factor on the mapping network's learning rate.
        mapping_layers: number of the mapping network's layers; published: 2.
    """

    def __init__(
        self,
        latent_dim: int,
        channels: int,
        widths: list[int],
        base_width: int,
        lr_multiplier: float,
        mapping_layers: int,
    ) -> None:
        super().__init__()
        self.mapping = MappingNetwork(latent_dim, latent_dim, mapping_layers, lr_multiplier, gain=_SQRT_2)
        self.synthesis = SynthesisNetwork(latent_dim, channels, widths, base_width)

    @property
    def style_count(self) -> int:
        """2n, the number of convolutions that take a style."""
        return self.synthesis.style_count

    def forward(self, latent: Tensor) -> Tensor:
        """The image, without an output activation; ``latent`` may also be one per convolution, ``[b, 2n, d_z]``."""
        image: Tensor = self.synthesis(self.mapping(latent))
        return image
