"""Plain equalised dense networks for data of any shape (T §4.1)."""

import math

from torch import Tensor, nn

from latentscale.networks.layers import DiscriminatorHeads, EqualizedLinear, leaky_relu
from latentscale.networks.outputs import Discrimination, Heads


def _hidden_layers(in_features: int, widths: list[int]) -> nn.ModuleList:
    return nn.ModuleList(
        EqualizedLinear(before, after) for before, after in zip([in_features, *widths], widths, strict=False)
    )


class MLPGenerator(nn.Module):
    """``[b, d_z]`` -> ``[b, *shape]``: dense lrelu layers, then one dense layer.

    Args:
        latent_dim: d_z.
        shape: of one sample.
        widths: of the hidden layers, from the latent to the sample.
    """

    def __init__(self, latent_dim: int, shape: tuple[int, ...], widths: list[int]) -> None:
        super().__init__()
        self.shape = shape
        self.layers = _hidden_layers(latent_dim, widths)
        self.to_sample = EqualizedLinear(widths[-1], math.prod(shape))

    def forward(self, latent: Tensor) -> Tensor:
        """The sample, not squashed."""
        x = latent
        for layer in self.layers:
            x = leaky_relu(layer(x))
        return self.to_sample(x).unflatten(1, self.shape)


class MLPDiscriminator(nn.Module):
    """``[b, *shape]`` -> `Discrimination`: dense lrelu layers on the flattened sample, heads on the last.

    F is the last hidden layer's activations.

    Args:
        shape: of one sample.
        widths: of the hidden layers, from the sample to the heads.
        heads: see `Heads`.
    """

    def __init__(self, shape: tuple[int, ...], widths: list[int], heads: Heads) -> None:
        super().__init__()
        self.layers = _hidden_layers(math.prod(shape), widths)
        self.heads = DiscriminatorHeads(widths[-1], heads)

    def forward(self, x: Tensor) -> Discrimination:
        """One pass over ``[b, *shape]``."""
        x = x.flatten(1)
        for layer in self.layers:
            x = leaky_relu(layer(x))
        return self.heads(x, x)
