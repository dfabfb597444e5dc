"""The mapping network z -> w of style-based generators (Karras et al. 2019) and of InvGAN (Ghosh et al. 2022, §3.1)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentscale.networks.layers import leaky_relu


class MappingLinear(nn.Module):
    """An equalised dense layer whose effective weights learn ``lr_multiplier`` times as fast under Adam.

    ``[b, in_features]`` -> ``[b, out_features]``. As in StyleGAN, the parameters are multiplied by ``lr_multiplier`` at
    run time, in addition to 1/√fan_in. The weights start with deviation ``1/lr_multiplier``, so that the initial layer
    does not depend on the multiplier.

    Attributes:
        initial_deviation: 1/lr_multiplier, read by `latentscale.networks.initialisation.initialize`.
    """

    def __init__(self, in_features: int, out_features: int, lr_multiplier: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.lr_multiplier, self.multiplier = lr_multiplier, lr_multiplier / math.sqrt(in_features)
        self.initial_deviation = 1.0 / lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """``[b, out_features]``."""
        return F.linear(x, self.weight * self.multiplier, self.bias * self.lr_multiplier)


class MappingNetwork(nn.Module):
    """``[b, latent_dim]`` -> ``[b, width]``: dense layers, each followed by lrelu, the last one too.

    Args:
        latent_dim: d_z.
        width: d_w, the width of every layer.
        layers: number of layers.
        lr_multiplier: factor on the learning rate.
        gain: factor on each layer's output; √2 keeps the deviation of w near that of z for any number of layers.
    """

    def __init__(self, latent_dim: int, width: int, layers: int, lr_multiplier: float, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
        self.layers = nn.ModuleList(
            MappingLinear(latent_dim if index == 0 else width, width, lr_multiplier) for index in range(layers)
        )

    def forward(self, latent: Tensor) -> Tensor:
        """w ``[b, width]``."""
        x = latent
        for layer in self.layers:
            x = leaky_relu(layer(x)) * self.gain
        return x
