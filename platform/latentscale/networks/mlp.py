"""Equalised multilayer perceptrons for data of any shape (Cho 2025, §4.1)."""

import math

from torch import Tensor, nn

from latentscale.networks.discriminator_output import DiscriminatorOutput, Heads
from latentscale.networks.layers import DiscriminatorHeads, EqualizedLinear, leaky_relu
from latentscale.networks.minibatch_deviation import MinibatchDeviation


def _hidden_layers(in_features: int, widths: list[int]) -> nn.ModuleList:
    return nn.ModuleList(
        EqualizedLinear(before, after) for before, after in zip([in_features, *widths], widths, strict=False)
    )


class MLPGenerator(nn.Module):
    """``[b, d_z]`` -> ``[b, *shape]``: dense lrelu layers, then a dense layer.

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
        """The sample, without an output activation."""
        x = latent
        for layer in self.layers:
            x = leaky_relu(layer(x))
        return self.to_sample(x).unflatten(1, self.shape)


class MLPDiscriminator(nn.Module):
    """``[b, *shape]`` -> `DiscriminatorOutput`: dense lrelu layers on the flattened sample, then the heads.

    F is the last hidden layer's output.

    Args:
        shape: of one sample.
        widths: of the hidden layers, from the sample to the heads.
        heads: see `Heads`.
        minibatch_deviation: whether the last hidden layer also takes the deviations over each stream's batch.

    Attributes:
        batchwise: whether a sample's output depends on the other samples of its stream.
    """

    def __init__(
        self, shape: tuple[int, ...], widths: list[int], heads: Heads, minibatch_deviation: bool = False
    ) -> None:
        super().__init__()
        self.batchwise = minibatch_deviation
        plain = widths[:-1] if minibatch_deviation else widths
        self.layers = _hidden_layers(math.prod(shape), plain)
        in_features = [math.prod(shape), *plain][-1]
        self.deviation = MinibatchDeviation(in_features, widths[-1]) if minibatch_deviation else None
        self.heads = DiscriminatorHeads(widths[-1], heads)

    def forward(self, x: Tensor, streams: int = 1) -> DiscriminatorOutput:
        """One forward pass over ``[b · streams, *shape]``; row i is of stream ``i % streams``."""
        x = x.flatten(1)
        for layer in self.layers:
            x = leaky_relu(layer(x))
        if self.deviation is not None:
            x = self.deviation(x, streams)
        return self.heads(x, x)
