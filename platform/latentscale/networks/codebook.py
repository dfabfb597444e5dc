"""The 256² networks of CGPGAN (Cho 2025, §4.5.3) and of the codebook experiments (§4.5.4), and the codebook itself.

Both experiments use the same blocks and differ in the first and last layers. A block of width w changes its input's
channels to w in its first convolution and in its skip, and keeps w in the second convolution. The discriminator's
last convolution changes the channels to ``base_width``.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, cat, nn

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
    """``(up-conv2 skip without bias + [up-conv3 lrelu, conv3 lrelu]) / √2``, to twice the size.

    Args:
        in_channels, out_channels: channels of the input and the output.
        size: height and width of the input.
    """

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        self.skip = EqualizedUpConv2d(in_channels, out_channels, size, kernel_size=2, bias=False, gain=_INV_SQRT_2)
        self.conv1 = EqualizedUpConv2d(in_channels, out_channels, size)
        self.conv2 = EqualizedConv2d(out_channels, out_channels, 3, gain=_INV_SQRT_2)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, in_channels, n, n]`` -> ``[b, out_channels, 2n, 2n]``."""
        skip: Tensor = self.skip(x)
        return skip + leaky_relu(self.conv2(leaky_relu(self.conv1(x))))


class DownBlock(nn.Module):
    """``(down-conv2 skip without bias + [conv3 lrelu, down-conv3 lrelu]) / √2``, to half the size.

    Args:
        in_channels, out_channels: channels of the input and the output.
        size: height and width of the input.
    """

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        self.skip = EqualizedDownConv2d(in_channels, out_channels, size, gain=_INV_SQRT_2, kernel_size=2)
        self.conv1 = EqualizedConv2d(in_channels, out_channels, 3)
        self.conv2 = EqualizedDownConv2d(out_channels, out_channels, size, gain=_INV_SQRT_2)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[b, in_channels, n, n]`` -> ``[b, out_channels, n/2, n/2]``."""
        skip: Tensor = self.skip(x)
        return skip + leaky_relu(self.conv2(leaky_relu(self.conv1(x)), self.bias * _INV_SQRT_2))


class Upsampler(nn.Module):
    """``[b, base_width, 4, 4]`` -> ``[b, channels, 4·2ⁿ, 4·2ⁿ]``: n blocks, then a 1×1 convolution.

    Args:
        channels: of the image.
        widths: one per block, from the image's resolution downwards.
        base_width: channels at 4².
    """

    def __init__(self, channels: int, widths: list[int], base_width: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        width, size = base_width, 4
        for next_width in reversed(widths):
            self.steps.append(UpBlock(width, next_width, size))
            width, size = next_width, 2 * size
        self.to_image = EqualizedConv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The image, without an output activation."""
        for step in self.steps:
            x = step(x)
        image: Tensor = self.to_image(x)
        return image


class CGPGANGenerator(nn.Module):
    """``[b, d]`` -> ``[b, channels, 4·2ⁿ, 4·2ⁿ]``: dense lrelu layers to 4², then the blocks.

    Args:
        latent_dim: width of the input: d_z, plus Σ d_c where categories are concatenated.
        channels: of the image.
        widths: one per block, from the image's resolution downwards.
        base_width: channels at 4²; published: 512, in the codebook experiments 1024.
        hidden_width: width of a dense lrelu layer before the one that makes the 4² map, 0 for none; published: 2·d_z,
            in the codebook experiments none.
    """

    def __init__(self, latent_dim: int, channels: int, widths: list[int], base_width: int, hidden_width: int) -> None:
        super().__init__()
        self.base_width = base_width
        self.hidden = EqualizedLinear(latent_dim, hidden_width) if hidden_width else None
        self.project = EqualizedLinear(hidden_width or latent_dim, base_width * 16)
        self.upsampler = Upsampler(channels, widths, base_width)

    def forward(self, latent: Tensor) -> Tensor:
        """The image, without an output activation."""
        x = latent if self.hidden is None else leaky_relu(self.hidden(latent))
        image: Tensor = self.upsampler(leaky_relu(self.project(x)).unflatten(1, (self.base_width, 4, 4)))
        return image


class Codebook(nn.Module):
    """A trainable embedding ("page") for every category of every label, initialised N(0, 1) (Cho 2025, §3.5.1).

    Pages have no equalised learning rate: the generator takes the parameters unscaled.

    Args:
        sizes: d_c of each label.
        page_dim: d_p, the width of a page.
    """

    def __init__(self, sizes: Sequence[int], page_dim: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.pages = nn.Parameter(torch.zeros(sum(self.sizes), page_dim))

    def forward(self, category: Tensor) -> Tensor:
        """One-hots ``[b, Σ d_c]`` to the concatenated pages of all labels ``[b, d_l · d_p]``.

        Probabilities in place of one-hots give the pages' expectation.
        """
        parts = category.to(self.pages.dtype).split(list(self.sizes), dim=1)
        pages = self.pages.split(list(self.sizes))
        return cat([part @ page for part, page in zip(parts, pages, strict=True)], dim=1)


class CodebookGenerator(nn.Module):
    """``[b, d_z]`` latents and ``[b, Σ d_c]`` categories -> ``[b, channels, 4·2ⁿ, 4·2ⁿ]``.

    The projected latent gives half of the 4² map's channels, the labels' pages the other half. Hence
    ``d_p = 4·4·(base_width/2)/d_l`` (Cho 2025, §3.5.1).

    Args:
        latent_dim: d_z.
        sizes: d_c of each label; their number must divide ``base_width / 2``.
        channels: of the image.
        widths: one per block, from the image's resolution downwards.
        base_width: channels at 4²; published: 1024.
    """

    def __init__(
        self, latent_dim: int, sizes: Sequence[int], channels: int, widths: list[int], base_width: int
    ) -> None:
        super().__init__()
        self.half_map = (base_width // 2, 4, 4)
        self.project = EqualizedLinear(latent_dim, math.prod(self.half_map))
        self.codebook = Codebook(sizes, math.prod(self.half_map) // len(sizes))
        self.upsampler = Upsampler(channels, widths, base_width)

    def forward(self, latent: Tensor, category: Tensor) -> Tensor:
        """The image, without an output activation."""
        latent_map = leaky_relu(self.project(latent)).unflatten(1, self.half_map)
        pages = self.codebook(category).unflatten(1, self.half_map)
        image: Tensor = self.upsampler(cat([latent_map, pages.to(latent_map.dtype)], dim=1))
        return image


class CGPGANDiscriminator(nn.Module):
    """``[b, channels, 4·2ⁿ, 4·2ⁿ]`` -> `DiscriminatorOutput`; also the classifier Q of both experiments.

    1×1 lrelu, the blocks, conv3 lrelu, flatten, dense lrelu, heads. F is the flattened 4² map.

    Args:
        channels: of the image.
        widths, base_width: as for the generator.
        hidden_width: of the dense layer before the heads; published: 2·d_z, in the codebook experiments 2·d_l·d_c.
        heads: see `Heads`.
    """

    def __init__(self, channels: int, widths: list[int], base_width: int, hidden_width: int, heads: Heads) -> None:
        super().__init__()
        self.from_image = EqualizedConv2d(channels, widths[0], 1)
        self.steps = nn.ModuleList()
        width, size = widths[0], 4 * 2 ** len(widths)
        for next_width in widths:
            self.steps.append(DownBlock(width, next_width, size))
            width, size = next_width, size // 2
        self.last = EqualizedConv2d(width, base_width, 3)
        self.hidden = EqualizedLinear(base_width * 16, hidden_width)
        self.heads = DiscriminatorHeads(hidden_width, heads)

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        """One forward pass over ``[b, channels, h, w]``."""
        x = leaky_relu(self.from_image(x))
        for step in self.steps:
            x = step(x)
        features = leaky_relu(self.last(x)).flatten(1)
        return self.heads(leaky_relu(self.hidden(features)), features)
