"""The networks of the MNIST experiments: AnoDLSGAN at 32² (Cho 2025, §4.3.1) and CGPGAN at 28² (§4.5.2)."""

import math
from functools import partial

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
from latentscale.networks.minibatch_deviation import MinibatchDeviation

# only AnoDLSGAN's MNIST networks multiply their weights by √(2/fan_in) instead of 1/√fan_in
_SQRT_2 = math.sqrt(2.0)
_Linear = partial(EqualizedLinear, weight_gain=_SQRT_2)
_Conv = partial(EqualizedConv2d, weight_gain=_SQRT_2)


class MNIST32Generator(nn.Module):
    """``[b, d_z]`` -> ``[b, channels, 4·2ⁿ, 4·2ⁿ]``: dense; per width blur-up, two conv3 lrelu; then 1×1.

    Args:
        latent_dim: d_z.
        channels: of the image.
        widths: one per block, from the image's resolution downwards; published: 128, 256, 512.
        base_width: channels at 4²; published: 1024.
    """

    def __init__(self, latent_dim: int, channels: int, widths: list[int], base_width: int) -> None:
        super().__init__()
        self.base_width = base_width
        self.project = _Linear(latent_dim, base_width * 16)
        self.blurs = nn.ModuleList()
        self.first, self.second = nn.ModuleList(), nn.ModuleList()
        width, size = base_width, 4
        for next_width in reversed(widths):
            self.blurs.append(Blur("up", size))
            self.first.append(_Conv(width, next_width, 3))
            self.second.append(_Conv(next_width, next_width, 3))
            width, size = next_width, 2 * size
        self.to_image = _Conv(width, channels, 1)

    def forward(self, latent: Tensor) -> Tensor:
        """The image, without an output activation."""
        x = leaky_relu(self.project(latent)).unflatten(1, (self.base_width, 4, 4))
        for blur, first, second in zip(self.blurs, self.first, self.second, strict=True):
            x = leaky_relu(second(leaky_relu(first(blur(x)))))
        image: Tensor = self.to_image(x)
        return image


class MNIST32Discriminator(nn.Module):
    """``[b, channels, 4·2ⁿ, 4·2ⁿ]`` -> `DiscriminatorOutput`.

    1×1 lrelu; per width: conv3 lrelu to that width, conv3 lrelu to the next width (after the last one, to
    ``base_width``), blur-down. F is the flattened 4² map. The heads are applied to F.

    Args:
        channels: of the image.
        widths, base_width: as for the generator.
        heads: see `Heads`.
    """

    def __init__(self, channels: int, widths: list[int], base_width: int, heads: Heads) -> None:
        super().__init__()
        self.from_image = _Conv(channels, widths[0], 1)
        self.blurs = nn.ModuleList()
        self.first, self.second = nn.ModuleList(), nn.ModuleList()
        size = 4 * 2 ** len(widths)
        for width, next_width in zip(widths, [*widths[1:], base_width], strict=True):
            self.first.append(_Conv(width, width, 3))
            self.second.append(_Conv(width, next_width, 3))
            self.blurs.append(Blur("down", size))
            size //= 2
        self.heads = DiscriminatorHeads(base_width * 16, heads, _Linear)

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        """One forward pass over ``[b, channels, h, w]``."""
        x = leaky_relu(self.from_image(x))
        for first, second, blur in zip(self.first, self.second, self.blurs, strict=True):
            x = blur(leaky_relu(second(leaky_relu(first(x)))))
        features = x.flatten(1)
        return self.heads(features, features)


class MNIST28Generator(nn.Module):
    """``[b, d_z]`` -> ``[b, channels, base·2ⁿ, base·2ⁿ]``: dense; per width up-conv2 lrelu, two conv3 lrelu; then 1×1.

    Args:
        latent_dim: width of the input: d_z, plus Σ d_c where categories are concatenated.
        channels: of the image.
        widths: one per block, from the image's resolution downwards; published: 128, 256.
        base_width: channels of the smallest map; published: 256.
        base_size: height and width of the smallest map; published: 7.
    """

    def __init__(self, latent_dim: int, channels: int, widths: list[int], base_width: int, base_size: int) -> None:
        super().__init__()
        self.base = (base_width, base_size, base_size)
        self.project = EqualizedLinear(latent_dim, math.prod(self.base))
        self.ups = nn.ModuleList()
        self.first, self.second = nn.ModuleList(), nn.ModuleList()
        width, size = base_width, base_size
        for next_width in reversed(widths):
            self.ups.append(EqualizedUpConv2d(width, next_width, size, kernel_size=2))
            self.first.append(EqualizedConv2d(next_width, next_width, 3))
            self.second.append(EqualizedConv2d(next_width, next_width, 3))
            width, size = next_width, 2 * size
        self.to_image = EqualizedConv2d(width, channels, 1)

    def forward(self, latent: Tensor) -> Tensor:
        """The image, without an output activation."""
        x = leaky_relu(self.project(latent)).unflatten(1, self.base)
        for up, first, second in zip(self.ups, self.first, self.second, strict=True):
            x = leaky_relu(second(leaky_relu(first(leaky_relu(up(x))))))
        image: Tensor = self.to_image(x)
        return image


class _DownBlock(nn.Module):
    """conv3 lrelu, conv3 lrelu, down-conv2 lrelu, all with ``width`` output channels."""

    def __init__(self, in_channels: int, width: int, size: int) -> None:
        super().__init__()
        self.first = EqualizedConv2d(in_channels, width, 3)
        self.second = EqualizedConv2d(width, width, 3)
        self.down = EqualizedDownConv2d(width, width, size, kernel_size=2)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """``[b, in_channels, size, size]`` -> ``[b, width, size/2, size/2]``."""
        return leaky_relu(self.down(leaky_relu(self.second(leaky_relu(self.first(x)))), self.bias))


class MNIST28Discriminator(nn.Module):
    """``[b, channels, base·2ⁿ, base·2ⁿ]`` -> `DiscriminatorOutput`; also CGPGAN's classifier Q.

    1×1 lrelu; per width two conv3 lrelu, down-conv2 lrelu; conv3 lrelu; flatten. F is the heads' input.

    Args:
        channels: of the image.
        widths, base_width, base_size: as for the generator.
        heads: see `Heads`.
        extra_width: of one more dense lrelu layer before the heads (512 in CAGAN's D); 0 for none.
        minibatch_deviation: whether that layer also takes the deviations over each stream's batch.

    Attributes:
        batchwise: whether a sample's output depends on the other samples of its stream.
    """

    def __init__(
        self,
        channels: int,
        widths: list[int],
        base_width: int,
        base_size: int,
        heads: Heads,
        extra_width: int = 0,
        minibatch_deviation: bool = False,
    ) -> None:
        super().__init__()
        self.batchwise = minibatch_deviation
        self.from_image = EqualizedConv2d(channels, widths[0], 1)
        self.steps = nn.ModuleList()
        width, size = widths[0], base_size * 2 ** len(widths)
        for next_width in widths:
            self.steps.append(_DownBlock(width, next_width, size))
            width, size = next_width, size // 2
        self.last = EqualizedConv2d(width, base_width, 3)
        features = base_width * base_size**2
        self.deviation = MinibatchDeviation(features, extra_width) if minibatch_deviation else None
        plain = extra_width and not minibatch_deviation
        self.extra = EqualizedLinear(features, extra_width) if plain else None
        self.heads = DiscriminatorHeads(extra_width or features, heads)

    def forward(self, x: Tensor, streams: int = 1) -> DiscriminatorOutput:
        """One forward pass over ``[b · streams, channels, h, w]``; row i is of stream ``i % streams``."""
        x = leaky_relu(self.from_image(x))
        for step in self.steps:
            x = step(x)
        x = leaky_relu(self.last(x)).flatten(1)
        if self.extra is not None:
            x = leaky_relu(self.extra(x))
        if self.deviation is not None:
            x = self.deviation(x, streams)
        return self.heads(x, x)
