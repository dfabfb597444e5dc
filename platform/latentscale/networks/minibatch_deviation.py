"""The minibatch standard deviation layer: D sees how much its batch varies (T §4.1.2; METHODS: mixed batches)."""

import math

import torch
from torch import Tensor, nn

from latentscale.latents.scale import at_least_float32
from latentscale.networks.layers import EqualizedLinear, leaky_relu

VARIANCE_FLOOR = 1e-8
"""Added to the variance under the square root, whose slope at 0 is infinite."""


class MinibatchDeviation(nn.Module):
    """``lrelu((dense(f) + dense(std))/√2 + bias)``, std the deviation of every feature over its stream's batch.

    Not ProGAN's one scalar. A stream's samples see their own stream alone, so that it does not matter how many
    streams go through together.

    Args:
        in_features, out_features: of both denses, which have no bias of their own.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.features = EqualizedLinear(in_features, out_features, bias=False)
        self.deviation = EqualizedLinear(in_features, out_features, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor, streams: int = 1) -> Tensor:
        """``[b · streams, in_features]`` to ``[b · streams, out_features]``; the streams' first samples come first."""
        by_stream = at_least_float32(x).unflatten(0, (-1, streams))
        deviation = (by_stream.var(0, correction=0) + VARIANCE_FLOOR).sqrt()
        both = self.features(x).unflatten(0, (-1, streams)) + self.deviation(deviation)
        return leaky_relu(both.flatten(0, 1) * math.sqrt(0.5) + self.bias)
