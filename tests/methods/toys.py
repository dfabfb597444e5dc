"""Small smooth networks in float64, and a batch, for comparing a method with its equations written out."""

import torch
from torch import Tensor, nn

from latentscale.latents.priors import make_prior
from latentscale.methods.base import Batch, Method
from latentscale.methods.registry import METHODS
from latentscale.networks.outputs import Discrimination, Heads
from latentscale.networks.spec import ModelSpec

D_Z, DATA, FEATURES = 3, 5, 4


class ToyDiscriminator(nn.Module):
    """tanh features with linear heads."""

    def __init__(self, heads: Heads) -> None:
        super().__init__()
        self.trunk = nn.Linear(DATA, FEATURES)
        self.adversarial = nn.Linear(FEATURES, heads.adversarial)
        self.latent = nn.Linear(FEATURES, heads.latent) if heads.latent else None
        self.log_variance = nn.Linear(FEATURES, heads.log_variance) if heads.log_variance else None

    def forward(self, x: Tensor) -> Discrimination:
        features = torch.tanh(self.trunk(x))
        return Discrimination(
            self.adversarial(features),
            self.latent(features) if self.latent is not None else None,
            self.log_variance(features) if self.log_variance is not None else None,
            features,
        )


def toy_method(name: str, **settings: object) -> Method:
    """A method around toy networks with fixed weights."""
    kind = METHODS[name]
    torch.manual_seed(5)
    generator = nn.Sequential(nn.Linear(D_Z, 7), nn.Tanh(), nn.Linear(7, DATA)).double()
    spec = ModelSpec((DATA,), D_Z)
    discriminator = ToyDiscriminator(kind.heads(spec)).double()
    chosen = kind.Settings(**{"r1": 0.7, "r2": 0.0, **settings})
    method = kind(chosen, {"generator": generator, "discriminator": discriminator}, make_prior("normal"), spec)
    for statistic in method.statistics.values():
        statistic.double()  # type: ignore[attr-defined]
        statistic.variance.copy_(torch.tensor([0.9, 0.3, 1.2], dtype=torch.float64))  # type: ignore[attr-defined]
    return method


def toy_batch(method: Method, streams: int = 2, stream_batch: int = 4, penalise: bool = True) -> Batch:
    """A batch of fixed numbers."""
    generator = torch.Generator().manual_seed(11)
    count = streams * stream_batch

    def normal(size: int) -> Tensor:
        return torch.randn(count, size, generator=generator, dtype=torch.float64)

    draws = {"discriminator_latent": normal(D_Z), "generator_latent": normal(D_Z)}
    return Batch(normal(DATA), draws, method.state(), {}, streams, penalise)
