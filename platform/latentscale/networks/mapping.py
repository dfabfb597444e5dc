"""The mapping network z -> w of style-based generators (Karras et al. 2019), used by InvGAN too (I §3.1)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentscale.networks.layers import leaky_relu


class SlowLinear(nn.Module):
    """An equalised dense layer whose effective weights learn ``rate`` times as fast under Adam.

    As in StyleGAN the parameters are multiplied by ``rate`` at run time, beside 1/√fan_in, and start ``1/rate`` times
    as wide, so that the layer starts as any equalised one: ``[b, in_features]`` -> ``[b, out_features]``.

    Attributes:
        initial_deviation: 1/rate, read by `latentscale.networks.initialisation.initialize`.
    """

    def __init__(self, in_features: int, out_features: int, rate: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.rate, self.multiplier = rate, rate / math.sqrt(in_features)
        self.initial_deviation = 1.0 / rate

    def forward(self, x: Tensor) -> Tensor:
        """``[b, out_features]``."""
        return F.linear(x, self.weight * self.multiplier, self.bias * self.rate)


class MappingNetwork(nn.Module):
    """``[b, latent_dim]`` -> ``[b, width]``: dense lrelu layers, the last one included.

    Args:
        latent_dim: d_z.
        width: of every layer, d_w.
        layers: how many.
        rate: multiplier of the learning rate.
        gain: of each layer's output; with √2 w is as wide as z however many layers there are.
    """

    def __init__(self, latent_dim: int, width: int, layers: int, rate: float, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
        self.layers = nn.ModuleList(
            SlowLinear(latent_dim if index == 0 else width, width, rate) for index in range(layers)
        )

    def forward(self, latent: Tensor) -> Tensor:
        """w."""
        x = latent
        for layer in self.layers:
            x = leaky_relu(layer(x)) * self.gain
        return x
