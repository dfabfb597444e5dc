"""The vanilla GAN: adversarial losses and penalties alone (Goodfellow et al. 2014; Cho 2025, eq. 49-51).

D minimises softplus(−a(x)) + softplus(a(G(z))) + λ_r R, G minimises softplus(−a(G(z))), or another such loss.
With ``latent.categories`` the generator also takes categories, drawn from a fixed P(C).
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from latentscale.latents.categories import prior_summary
from latentscale.latents.priors import Prior
from latentscale.methods.base import MethodSettings
from latentscale.methods.categorical import CategoricalMethod, FixedPriorSettings, drawn_category
from latentscale.methods.passes import adversarial_terms, compared_reals, discriminate, generator_loss, scores
from latentscale.methods.phase import Batch, Phase, Terms, weighted_terms
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.spec import ModelSpec


class DiscriminatorPhase(Phase):
    """L_d = adv + λ_r R."""

    name = "discriminator"
    settings: MethodSettings
    discriminator: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings = self.settings
        with torch.no_grad():
            images = self.borrowed("generator")(*generator_input(batch, "discriminator", self.sizes))
        real = discriminate(self.discriminator, batch.real, batch, settings.r1)
        fake = discriminate(self.discriminator, images, batch, settings.r2)
        return weighted_terms(adversarial_terms(settings, real, fake), measured=scores(real, fake))


class GeneratorPhase(Phase):
    """L_g = adv."""

    name = "generator"
    settings: MethodSettings
    generator: nn.Module

    def forward(self, batch: Batch) -> Terms:
        discriminator = self.borrowed("discriminator")
        images = self.generator(*generator_input(batch, "generator", self.sizes))
        real = compared_reals(self.settings, discriminator, batch)
        fake = discriminate(discriminator, images, batch)
        return weighted_terms({"adversarial": (1.0, generator_loss(self.settings, real, fake))})


def generator_input(batch: Batch, phase: str, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """What G takes in a phase: z, or z and c."""
    z = batch.draws[f"{phase}_latent"]
    return (z, drawn_category(batch, f"{phase}_category", sizes)) if sizes else (z,)


class Vanilla(CategoricalMethod):
    """The GAN without an encoder; P(C), where there are categories, is fixed."""

    name = "vanilla"
    paper = "Goodfellow et al. 2014; Cho 2025, eq. 49-51"
    Settings: ClassVar[type[MethodSettings]] = FixedPriorSettings
    categorical = True
    categories_optional = True
    unaveraged = ("discriminator",)

    def __init__(
        self, settings: FixedPriorSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        if spec.categories:
            self.statistics["category_prior"] = settings.fixed_prior(spec.categories)
        g, d = {"generator": networks["generator"]}, {"discriminator": networks["discriminator"]}
        sizes = spec.categories
        self.phases = [DiscriminatorPhase(d, g, settings, sizes), GeneratorPhase(g, d, settings, sizes)]

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=1)

    def summary(self) -> dict[str, Tensor]:
        return prior_summary(self.category_prior.probabilities) if self.spec.categories else {}
