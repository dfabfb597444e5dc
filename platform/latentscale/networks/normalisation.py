"""Instance and group norm, which normalise within a sample and keep no running state."""

import math

import torch
from torch import Tensor, nn

EPSILON = 1e-5
"""Added to the variance before the square root."""

GROUPS = 32
"""Number of groups where it divides the channels; see `group_count`."""


class GroupNorm(nn.Module):
    """Mean 0 and variance 1 within each group of a sample's channels, then ``(1 + scale_bias)·x + bias`` per channel.

    Args:
        channels: of ``[b, channels, h, w]``.
        groups: number of groups; as many as channels make it an instance norm.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.scale_bias = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[b, channels, h, w]``."""
        return normalise_groups(x, self.groups) * (1 + self.scale_bias)[:, None, None] + self.bias[:, None, None]


def normalise_groups(x: Tensor, groups: int) -> Tensor:
    """``[b, c, h, w]`` with mean 0 and variance 1 within each group of a sample's channels.

    Computed in float32, or in float64 for float64 input; returned in x's type.
    """
    parts = x.unflatten(1, (groups, -1)).flatten(2)
    # bfloat16 is too imprecise for the mean of squares
    wide = parts if parts.dtype == torch.float64 else parts.float()
    centred = wide - wide.mean(2, keepdim=True)
    scale = (centred.square().mean(2, keepdim=True) + EPSILON).rsqrt()
    return (centred * scale).to(x.dtype).view_as(x)


def group_count(channels: int) -> int:
    """The greatest common divisor of `GROUPS` and the channels."""
    return math.gcd(GROUPS, channels)
