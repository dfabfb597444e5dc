"""Models for tests: one with real networks, and one whose maps can be worked out by hand."""

import torch
from torch import Tensor, nn

from latentscale.inversion.trained_model import TrainedModel
from latentscale.latents.priors import make_prior
from latentscale.latents.scale import LatentScale
from latentscale.methods.base import Method
from latentscale.methods.dlsgan import DLSGAN
from latentscale.methods.pvdgan import PVDGAN
from latentscale.methods.vanilla import Vanilla
from latentscale.networks.discriminator_output import DiscriminatorOutput
from latentscale.networks.factory import NetworkSettings
from latentscale.networks.initialisation import initialize
from latentscale.networks.spec import ModelSpec

DIM = 6


def tiny_model(
    shape: tuple[int, ...] = (1, 8, 8),
    encoder: bool = True,
    method: type[Method] | None = None,
    law: str = "normal",
    dtype: torch.dtype = torch.float32,
    width: int = 4,
) -> TrainedModel:
    """Real networks of a few thousand weights, untrained, with a dynamic scale whose elements all differ."""
    image = len(shape) == 3
    settings = NetworkSettings(
        family="residual" if image else "mlp", widths=[width] if image else [16], base_width=width
    )
    return model_of(method or (PVDGAN if encoder else Vanilla), settings, ModelSpec(shape, DIM), law, dtype)


def model_of(
    kind: type[Method],
    network: NetworkSettings,
    spec: ModelSpec,
    law: str = "normal",
    dtype: torch.dtype = torch.float32,
    **settings: object,
) -> TrainedModel:
    """An untrained model of any method of `DIM` latents, with all its statistics."""
    chosen = kind.Settings(**settings)  # type: ignore[arg-type]
    networks = kind.build_networks(chosen, network, spec)
    for name, each in networks.items():
        initialize(each.to(dtype), 1, name)
    built = kind(chosen, networks, make_prior(law), spec)
    for name, statistic in built.statistics.items():
        assert isinstance(statistic, nn.Module)
        initialize(statistic, 1, name)
        if isinstance(statistic, LatentScale):
            statistic.variance.copy_(torch.tensor([0.9, 0.3, 0.05, 0.6, 0.2, 0.01]))
    return TrainedModel(built, network, step=1200, images_seen=38400, dataset="digits")


class _Reshape(nn.Module):
    def __init__(self, shape: tuple[int, ...], factor: float) -> None:
        super().__init__()
        self.shape = shape
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, scaled: Tensor) -> Tensor:
        return self.factor * scaled.reshape(-1, *self.shape)


class _Unscale(nn.Module):
    def __init__(self, scale: Tensor, error: Tensor) -> None:
        super().__init__()
        self.scale, self.error = scale, error
        self.unused = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        flat = x.flatten(1)
        return DiscriminatorOutput(flat[:, :1], flat / self.scale + self.error, None, flat)


def exact_model(shape: tuple[int, int, int], variance: Tensor, error: Tensor, factor: float = 1.0) -> TrainedModel:
    """G reshapes: G(u) = factor · u, and E(x) = x / s + error; one latent element a pixel, all in float64.

    With factor 1, E(G(z∘s)) = z + error and G(E(x)∘s) = x + error∘s.
    """
    dim = variance.numel()
    scale = (dim * variance / variance.sum()).sqrt()
    networks = {"generator": _Reshape(shape, factor), "discriminator": _Unscale(scale, error)}
    method = DLSGAN(DLSGAN.Settings(), networks, make_prior("normal"), ModelSpec(shape, dim))
    method.latent_scale.double().variance.copy_(variance)
    return TrainedModel(method, NetworkSettings(), step=0, images_seen=0, dataset="none")
