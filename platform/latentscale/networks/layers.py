"""Layers with equalised learning rates (Karras et al. 2018): weights ~ N(0, 1), multiplied by 1/√fan_in at run time.

Biases start at 0. All parameters are zero until `latentscale.networks.initialisation.initialize` or a state dict
fills them.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentscale.networks.blur import Blur
from latentscale.networks.discriminator_output import DiscriminatorOutput, Heads

NEGATIVE_SLOPE = 0.2
"""Slope of the leaky ReLU below 0."""


def leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU with slope 0.2, in place: ``x`` must be a layer's output that nothing else reads."""
    return F.leaky_relu(x, NEGATIVE_SLOPE, inplace=True)


def _apply_multiplier(x: Tensor, weight: Tensor, multiplier: float) -> tuple[Tensor, Tensor]:
    """``x`` and ``weight``, of which the smaller one is multiplied, since that is cheaper."""
    if weight.numel() < x.numel():
        return x, weight * multiplier
    return x * multiplier, weight


class EqualizedLinear(nn.Module):
    """``x @ weightᵀ / sqrt(in_features) + bias``: ``[b, in_features]`` -> ``[b, out_features]``.

    Args:
        in_features, out_features: fan_in is ``in_features``.
        bias: whether the layer has a bias.
        weight_gain: factor on the weights alone, not on the bias.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, weight_gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.multiplier = weight_gain / math.sqrt(in_features)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, out_features]``."""
        x, weight = _apply_multiplier(x, self.weight, self.multiplier)
        return F.linear(x, weight, self.bias)


class EqualizedConv2d(nn.Module):
    """A convolution that keeps the size, ``[b, in_channels, h, w]`` -> ``[b, out_channels, h, w]``, zero padded.

    Args:
        in_channels, out_channels: fan_in is ``in_channels · kernel_size²``.
        kernel_size: 1 or 3.
        bias: whether the layer has a bias per channel.
        gain: factor on the whole output, bias included. A leaky ReLU commutes with a positive factor, so a gain of
            1/√2 here replaces the division after a residual sum.
        weight_gain: factor on the weights alone, not on the bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        bias: bool = True,
        gain: float = 1.0,
        weight_gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.multiplier = gain * weight_gain / math.sqrt(in_channels * kernel_size**2)
        self.gain = gain
        self.padding = kernel_size // 2

    def forward(self, x: Tensor) -> Tensor:
        """``[b, out_channels, h, w]``."""
        x, weight = _apply_multiplier(x, self.weight, self.multiplier)
        bias = self.bias if self.bias is None or self.gain == 1.0 else self.bias * self.gain
        return F.conv2d(x, weight, bias, padding=self.padding)


def _shift_sum(kernel_size: int) -> Tensor:
    """``[k², (k + 1)²]`` matrix that takes a flattened k×k kernel to the flattened sum of its four one-pixel shifts."""
    axis = torch.zeros(kernel_size, kernel_size + 1)
    for tap in range(kernel_size):
        axis[tap, tap] = axis[tap, tap + 1] = 1.0
    return torch.kron(axis, axis)


class EqualizedUpConv2d(nn.Module):
    """Stride-2 transposed convolution, then blur: ``[b, in, n, n]`` -> ``[b, out, 2n, 2n]``.

    The convolution's kernel is the sum of the weight's four one-pixel shifts, which is the same as repeating every
    pixel 2×2 first (as in StyleGAN, Karras et al. 2019). fan_in is ``in_channels · kernel_size²``. The bias is added
    after the blur.

    Args:
        in_channels, out_channels: channels of the input and the output.
        size: n, height and width of the input.
        kernel_size: 3, or 2 for the skips of Cho 2025, §4.5.
        bias: whether the layer has a bias per channel.
        gain: factor on the whole output, bias included.
    """

    shifts: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        kernel_size: int = 3,
        bias: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(in_channels, out_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.multiplier = gain / math.sqrt(in_channels * kernel_size**2)
        self.gain = gain
        self.size_out = 2 * size
        self.padding = (kernel_size - 1) // 2
        self.blur = Blur("same", 2 * size)
        self.register_buffer("shifts", _shift_sum(kernel_size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, out_channels, 2n, 2n]``."""
        x, weight = _apply_multiplier(x, self.weight, self.multiplier)
        k = weight.shape[2] + 1
        kernel = (weight.flatten(2) @ self.shifts.to(weight.dtype)).unflatten(2, (k, k))
        # with kernel_size 2 the result has one row and one column too many
        x = F.conv_transpose2d(x, kernel, stride=2, padding=self.padding)[:, :, : self.size_out, : self.size_out]
        if self.bias is None:
            return self.blur(x)
        return self.blur(x) + (self.bias if self.gain == 1.0 else self.bias * self.gain)[:, None, None]


class EqualizedDownConv2d(nn.Module):
    """Blur, then stride-2 convolution: ``[b, in, n, n]`` -> ``[b, out, n/2, n/2]``, without bias.

    The convolution's kernel is the mean of the weight's four one-pixel shifts, which is the same as 2×2 average
    pooling afterwards (as in StyleGAN, Karras et al. 2019). fan_in is ``in_channels · kernel_size²``.

    Args:
        in_channels, out_channels: channels of the input and the output.
        size: n, height and width of the input.
        gain: factor on the output.
        kernel_size: 3, or 2 for the skips of Cho 2025, §4.5.
    """

    shifts: Tensor

    def __init__(self, in_channels: int, out_channels: int, size: int, gain: float = 1.0, kernel_size: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, kernel_size, kernel_size))
        self.multiplier = gain / math.sqrt(in_channels * kernel_size**2)
        self.even = kernel_size % 2 == 0
        self.blur = Blur("same", size)
        self.register_buffer("shifts", _shift_sum(kernel_size) / 4.0, persistent=False)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``[b, out_channels, n/2, n/2]``; a ``bias`` ``[out_channels]`` is added without the gain."""
        x, weight = _apply_multiplier(x, self.weight, self.multiplier)
        k = weight.shape[2] + 1
        kernel = (weight.flatten(2) @ self.shifts.to(weight.dtype)).unflatten(2, (k, k))
        x = self.blur(x)
        if self.even:
            return F.conv2d(F.pad(x, (0, 1, 0, 1)), kernel, bias, stride=2)
        return F.conv2d(x, kernel, bias, stride=2, padding=1)


class DiscriminatorHeads(nn.Module):
    """One linear layer per head of non-zero width: ``[b, in_features]`` -> `DiscriminatorOutput`.

    Args:
        in_features: width of the layer below.
        heads: widths of the heads. Without an adversarial head the adversarial values are ``[b, 0]``.
        layer: builds a head from its input and output width.
    """

    def __init__(
        self, in_features: int, heads: Heads, layer: Callable[[int, int], nn.Module] = EqualizedLinear
    ) -> None:
        super().__init__()
        self.adversarial = layer(in_features, heads.adversarial) if heads.adversarial else None
        self.latent = layer(in_features, heads.latent) if heads.latent else None
        self.log_variance = layer(in_features, heads.log_variance) if heads.log_variance else None
        self.classes = layer(in_features, heads.classes) if heads.classes else None

    def forward(self, x: Tensor, features: Tensor) -> DiscriminatorOutput:
        """The heads' values on ``x`` ``[b, in_features]``; ``features`` ``[b, F]`` are passed through."""
        return DiscriminatorOutput(
            x.new_empty(len(x), 0) if self.adversarial is None else self.adversarial(x),
            None if self.latent is None else self.latent(x),
            None if self.log_variance is None else self.log_variance(x),
            features,
            None if self.classes is None else self.classes(x),
        )
