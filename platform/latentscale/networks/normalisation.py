"""Normalisation within a sample: instance and group norm, which leave no state behind."""

import math

import torch
from torch import Tensor, nn

EPSILON = 1e-5
"""Added to the variance."""

GROUPS = 32
"""Groups of a group norm, fewer where the channels are no multiple."""


class GroupNorm(nn.Module):
    """Mean 0 and variance 1 within each group of a sample's channels, then ``(1 + scale_bias)·x + bias`` per channel.

    Args:
        channels: of ``[b, channels, h, w]``.
        groups: that the channels are cut into; ``channels`` of them are instance norm.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.scale_bias = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[b, channels, h, w]``."""
        return standardised(x, self.groups) * (1 + self.scale_bias)[:, None, None] + self.bias[:, None, None]


def standardised(x: Tensor, groups: int) -> Tensor:
    """``[b, c, h, w]`` with mean 0 and variance 1 in each of a sample's ``groups``, in float32 or above inside."""
    parts = x.unflatten(1, (groups, -1)).flatten(2)
    # bfloat16 has too few digits for the small differences of a sum of squares
    wide = parts if parts.dtype == torch.float64 else parts.float()
    centred = wide - wide.mean(2, keepdim=True)
    scale = (centred.square().mean(2, keepdim=True) + EPSILON).rsqrt()
    return (centred * scale).to(x.dtype).view_as(x)


def group_count(channels: int) -> int:
    """The largest number of groups up to `GROUPS` that both divides."""
    return math.gcd(GROUPS, channels)
