"""Small smooth networks in float64, and a batch, for comparing a method with its equations written out."""

import torch
from torch import Tensor, nn

from latentscale.latents.categories import TrainablePrior
from latentscale.latents.priors import make_prior
from latentscale.methods.base import Method
from latentscale.methods.phase import Batch
from latentscale.methods.registry import METHODS
from latentscale.networks.conditional_generator import ConditionalGenerator
from latentscale.networks.discriminator_output import DiscriminatorOutput, Heads
from latentscale.networks.spec import ModelSpec
from latentscale.networks.trunk_classifier import TrunkClassifier

D_Z, DATA, FEATURES = 3, 5, 4


class ToyDiscriminator(nn.Module):
    """tanh features with linear heads."""

    def __init__(self, heads: Heads) -> None:
        super().__init__()
        self.trunk = nn.Linear(DATA, FEATURES)
        self.adversarial = nn.Linear(FEATURES, heads.adversarial) if heads.adversarial else None
        self.latent = nn.Linear(FEATURES, heads.latent) if heads.latent else None
        self.log_variance = nn.Linear(FEATURES, heads.log_variance) if heads.log_variance else None
        self.classes = nn.Linear(FEATURES, heads.classes) if heads.classes else None

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        features = torch.tanh(self.trunk(x))
        return DiscriminatorOutput(
            self.adversarial(features) if self.adversarial is not None else x.new_empty(len(x), 0),
            self.latent(features) if self.latent is not None else None,
            self.log_variance(features) if self.log_variance is not None else None,
            features,
            self.classes(features) if self.classes is not None else None,
        )


def toy_method(name: str, categories: tuple[int, ...] = (), **settings: object) -> Method:
    """A method around toy networks with fixed weights; with categories, G takes them unless it is AEDLSGAN's."""
    kind = METHODS[name]
    torch.manual_seed(5)
    spec = ModelSpec((DATA,), D_Z, categories)
    taken = () if name == "aedlsgan" else categories
    generator = nn.Sequential(nn.Linear(D_Z + sum(taken), 7), nn.Tanh(), nn.Linear(7, DATA)).double()
    discriminator = ToyDiscriminator(kind.heads(spec)).double()
    chosen = kind.Settings(**{"r1": 0.7, "r2": 0.0, **settings})
    players = {
        "generator": ConditionalGenerator(generator, taken) if taken else generator,
        "discriminator": discriminator,
    }
    if kind.categorical and not kind.categories_optional:
        players["classifier"] = ToyDiscriminator(Heads(adversarial=0, classes=spec.category_dim)).double()
    if name == "elastic_infogan":
        players["prior"] = TrainablePrior(categories).double()
    method = kind(chosen, other_players(name, players, spec), make_prior("normal"), spec)
    for name, statistic in method.statistics.items():
        statistic.double()
        if name == "variance":
            statistic.variance.copy_(torch.tensor([0.9, 0.3, 1.2], dtype=torch.float64))
    return method


def other_players(name: str, players: dict[str, nn.Module], spec: ModelSpec) -> dict[str, nn.Module]:
    """The networks of methods that have others than generator, discriminator and Q."""
    encoder = ToyDiscriminator(Heads(adversarial=0, latent=D_Z, log_variance=D_Z if name == "vaegan" else 0))
    if name == "vaegan":
        return players | {"encoder": encoder.double()}
    if name == "invgan":
        return players | {"mapping": nn.Sequential(nn.Linear(D_Z, D_Z), nn.Tanh()).double()}
    if name in ("autoencoder", "posthoc_encoder"):
        return {"generator": players["generator"], "encoder": encoder.double()}
    if name == "classifier":
        return {"classifier": TrunkClassifier(encoder, D_Z, spec.category_dim).double()}
    return players


def toy_batch(method: Method, streams: int = 2, stream_batch: int = 4, penalise: bool = True) -> Batch:
    """A batch of fixed numbers."""
    generator = torch.Generator().manual_seed(11)
    count = streams * stream_batch

    def normal(size: int) -> Tensor:
        return torch.randn(count, size, generator=generator, dtype=torch.float64)

    draws = {"discriminator_latent": normal(D_Z), "generator_latent": normal(D_Z)}
    batch = Batch(normal(DATA), draws, streams, penalise, state=method.state())
    sizes = method.spec.categories
    for name, draw in method.draws().items():
        if name.endswith("_category"):
            uniforms = torch.rand(count, draw.size, generator=generator, dtype=torch.float64)
            batch.draws[name] = draw.quantile(uniforms)  # type: ignore[misc]
    if not method.labelled:
        return batch
    labels = [torch.randint(size, (count,), generator=generator) for size in sizes]
    return batch._replace(labels=torch.stack(labels, dim=1))
