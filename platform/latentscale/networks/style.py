"""The StyleGAN-like generator of AnoDLSGAN's CelebA experiments (T §4.3.3), in two halves for InvGAN (I §3.1).

A mapping network, a learned 4×4 constant, modulated convolutions without demodulation and blurred-up RGB skips;
lrelu·√2 throughout. Styles are affine maps of w without an added 1, so that the modulation keeps the variance. The
published discriminator is only said to be a CNN with skips: `latentscale.networks.residual` serves.
"""

import math

import torch
from torch import Tensor, nn

from latentscale.networks.layers import EqualizedConv2d, EqualizedLinear, EqualizedUpConv2d, leaky_relu
from latentscale.networks.mapping import MappingNetwork
from latentscale.networks.resampling import Blur

_SQRT_2 = math.sqrt(2.0)


class StyleStep(nn.Module):
    """Modulated up-conv3 and conv3, each lrelu·√2; image ← blur-up(image) + 1×1 toRGB(features).

    Args:
        in_channels, out_channels: of the features.
        image_channels: of the image.
        style_dim: of w.
        size: of the input's sides.
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
        """Features and image at ``size`` -> both at twice the size; w of each convolution ``[b, style_dim]``."""
        # scaling a convolution's input channels is scaling its weights, sample by sample
        x = leaky_relu(self.conv1(x * self.style1(first)[:, :, None, None]))
        x = leaky_relu(self.conv2(x * self.style2(second)[:, :, None, None]))
        return x, self.blur(image) + self.to_image(x)


class StyleSynthesis(nn.Module):
    """``w [b, d_w]``, or one for each of the 2n convolutions ``[b, 2n, d_w]``, -> ``[b, channels, 4·2ⁿ, 4·2ⁿ]``.

    Args:
        style_dim: d_w.
        channels: of the image.
        widths: one per ×2 step, from the image's resolution downwards; n of them.
        base_width: width at 4².

    Attributes:
        style_count: 2n.
    """

    def __init__(self, style_dim: int, channels: int, widths: list[int], base_width: int) -> None:
        super().__init__()
        self.style_count = 2 * len(widths)
        self.constant = nn.Parameter(torch.zeros(base_width, 4, 4))
        self.to_image = EqualizedConv2d(base_width, channels, 1)
        self.steps = nn.ModuleList()
        width, size = base_width, 4
        for next_width in reversed(widths):
            self.steps.append(StyleStep(width, next_width, channels, style_dim, size))
            width, size = next_width, 2 * size

    def forward(self, style: Tensor) -> Tensor:
        """The image, not squashed."""
        styles = style.unbind(1) if style.dim() == 3 else (style,) * self.style_count
        x = self.constant.expand(len(style), -1, -1, -1)
        image: Tensor = self.to_image(x)
        for index, step in enumerate(self.steps):
            x, image = step(x, image, styles[2 * index], styles[2 * index + 1])
        return image


class StyleGenerator(nn.Module):
    """``z [b, d_z]`` -> ``[b, channels, 4·2ⁿ, 4·2ⁿ]``: mapping network, then `StyleSynthesis` of a w as wide as z.

    Args:
        latent_dim: d_z.
        channels, widths, base_width: as `StyleSynthesis`'s.
        rate: multiplier of the mapping network's learning rate.
        mapping_layers: how many dense layers; published 2.
    """

    def __init__(
        self, latent_dim: int, channels: int, widths: list[int], base_width: int, rate: float, mapping_layers: int
    ) -> None:
        super().__init__()
        self.mapping = MappingNetwork(latent_dim, latent_dim, mapping_layers, rate, gain=_SQRT_2)
        self.synthesis = StyleSynthesis(latent_dim, channels, widths, base_width)

    @property
    def style_count(self) -> int:
        """2n, the convolutions that each take a style."""
        return self.synthesis.style_count

    def forward(self, latent: Tensor) -> Tensor:
        """The image, not squashed; also of a latent for each convolution, ``[b, 2n, d_z]``."""
        image: Tensor = self.synthesis(self.mapping(latent))
        return image
