"""The minibatch standard deviation layer, which shows D how much its batch varies (Cho 2025, §4.1.2)."""

import math

import torch
from torch import Tensor, nn

from latentscale.latents.scale import at_least_float32
from latentscale.networks.layers import EqualizedLinear, leaky_relu

VARIANCE_FLOOR = 1e-8
"""Added to the variance below the square root, whose derivative at 0 is infinite."""


class MinibatchDeviation(nn.Module):
    """``lrelu((dense(f) + dense(std))/√2 + bias)``, where std is each feature's deviation over its stream's batch.

    Unlike ProGAN's layer (Karras et al. 2018), it does not average the deviations to one scalar. Samples depend only
    on their own stream, so the result does not depend on how many streams a call holds.

    Args:
        in_features, out_features: widths of both dense layers, which have no bias of their own.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.features = EqualizedLinear(in_features, out_features, bias=False)
        self.deviation = EqualizedLinear(in_features, out_features, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor, streams: int = 1) -> Tensor:
        """``[b · streams, in_features]`` -> ``[b · streams, out_features]``; row i is of stream ``i % streams``."""
        by_stream = at_least_float32(x).unflatten(0, (-1, streams))
        deviation = (by_stream.var(0, correction=0) + VARIANCE_FLOOR).sqrt()
        both = self.features(x).unflatten(0, (-1, streams)) + self.deviation(deviation)
        return leaky_relu(both.flatten(0, 1) * math.sqrt(0.5) + self.bias)
