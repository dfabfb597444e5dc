"""Equalised layers: weights ~ N(0, 1), multiplied by 1/sqrt(fan_in) at run time; biases start at 0.

Parameters are zeros until `latentscale.networks.initialisation.initialize` or a state dict fills them.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentscale.networks.outputs import Discrimination, Heads
from latentscale.networks.resampling import Blur

SLOPE = 0.2
"""Of the leaky ReLU below 0."""


def leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU with slope 0.2, written over ``x``, which must be a layer's own fresh output."""
    return F.leaky_relu(x, SLOPE, inplace=True)


def _scaled(x: Tensor, weight: Tensor, multiplier: float) -> tuple[Tensor, Tensor]:
    """``x`` and ``weight`` with the multiplier put on the smaller of the two: it costs the least there."""
    if weight.numel() < x.numel():
        return x, weight * multiplier
    return x * multiplier, weight


class EqualizedLinear(nn.Module):
    """``x @ weightᵀ / sqrt(in_features) + bias``: ``[b, in_features]`` -> ``[b, out_features]``.

    Args:
        in_features, out_features: fan_in is ``in_features``.
        bias: whether there is one.
        weight_gain: of the weights alone.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, weight_gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.multiplier = weight_gain / math.sqrt(in_features)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, out_features]``."""
        x, weight = _scaled(x, self.weight, self.multiplier)
        return F.linear(x, weight, self.bias)


class EqualizedConv2d(nn.Module):
    """A same-size convolution, ``[b, in_channels, h, w]`` -> ``[b, out_channels, h, w]``, zero padded.

    Args:
        in_channels, out_channels: fan_in is ``in_channels · kernel_size²``.
        kernel_size: 1 or 3.
        bias: whether there is one, per channel.
        gain: of the whole output, bias included. A leaky ReLU passes a positive gain on, so 1/√2 given here
            replaces the division after a residual sum.
        weight_gain: of the weights alone.
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
        x, weight = _scaled(x, self.weight, self.multiplier)
        bias = self.bias if self.bias is None or self.gain == 1.0 else self.bias * self.gain
        return F.conv2d(x, weight, bias, padding=self.padding)


def _shift_sum(kernel_size: int) -> Tensor:
    """``[k², (k + 1)²]``: a flattened k×k kernel times this is the flattened sum of its four one-pixel shifts."""
    axis = torch.zeros(kernel_size, kernel_size + 1)
    for tap in range(kernel_size):
        axis[tap, tap] = axis[tap, tap + 1] = 1.0
    return torch.kron(axis, axis)


class EqualizedUpConv2d(nn.Module):
    """Stride-2 transposed convolution, then blur: ``[b, in, n, n]`` -> ``[b, out, 2n, 2n]``.

    The kernel is the sum of its four one-pixel shifts, which repeats every pixel 2×2 first (as in StyleGAN);
    fan_in is ``in_channels · kernel_size²``, that of the kernel as it is. The bias is added after the blur.

    Args:
        in_channels, out_channels: see above.
        size: n.
        kernel_size: 3, or 2 for the skips of T §4.5.
        bias: whether there is one.
        gain: of the whole output, bias included.
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
        x, weight = _scaled(x, self.weight, self.multiplier)
        k = weight.shape[2] + 1
        kernel = (weight.flatten(2) @ self.shifts.to(weight.dtype)).unflatten(2, (k, k))
        # a kernel of 2 reaches one row and column beyond the doubled map
        x = F.conv_transpose2d(x, kernel, stride=2, padding=self.padding)[:, :, : self.size_out, : self.size_out]
        if self.bias is None:
            return self.blur(x)
        return self.blur(x) + (self.bias if self.gain == 1.0 else self.bias * self.gain)[:, None, None]


class EqualizedDownConv2d(nn.Module):
    """Blur, then stride-2 convolution: ``[b, in, n, n]`` -> ``[b, out, n/2, n/2]``, without bias.

    The kernel is the mean of its four one-pixel shifts, which averages 2×2 pixels last (as in StyleGAN); fan_in
    is ``in_channels · kernel_size²``, that of the kernel as it is.

    Args:
        in_channels, out_channels: see above.
        size: n.
        gain: of the output.
        kernel_size: 3, or 2 for the skips of T §4.5.
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
        """``[b, out_channels, n/2, n/2]``, plus ``bias`` ``[out_channels]`` as it is, if given."""
        x, weight = _scaled(x, self.weight, self.multiplier)
        k = weight.shape[2] + 1
        kernel = (weight.flatten(2) @ self.shifts.to(weight.dtype)).unflatten(2, (k, k))
        x = self.blur(x)
        if self.even:
            return F.conv2d(F.pad(x, (0, 1, 0, 1)), kernel, bias, stride=2)
        return F.conv2d(x, kernel, bias, stride=2, padding=1)


class DiscriminatorHeads(nn.Module):
    """One linear layer per head that exists: ``[b, in_features]`` -> `Discrimination`.

    Args:
        in_features: of the layer below.
        heads: widths. An encoder without an adversarial head returns ``[b, 0]`` adversarial values.
        layer: makes each from its widths in and out.
    """

    def __init__(
        self, in_features: int, heads: Heads, layer: Callable[[int, int], nn.Module] = EqualizedLinear
    ) -> None:
        super().__init__()
        self.adversarial = layer(in_features, heads.adversarial) if heads.adversarial else None
        self.latent = layer(in_features, heads.latent) if heads.latent else None
        self.log_variance = layer(in_features, heads.log_variance) if heads.log_variance else None
        self.classes = layer(in_features, heads.classes) if heads.classes else None

    def forward(self, x: Tensor, features: Tensor) -> Discrimination:
        """The heads' values on ``x``, with ``features`` ``[b, F]`` passed on."""
        return Discrimination(
            x.new_empty(len(x), 0) if self.adversarial is None else self.adversarial(x),
            None if self.latent is None else self.latent(x),
            None if self.log_variance is None else self.log_variance(x),
            features,
            None if self.classes is None else self.classes(x),
        )
