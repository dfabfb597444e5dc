"""Categorical InfoGAN: G and a classifier Q agree on the category of every fake (Cho 2025, eq. 9-14).

L_q = λ_cls CE(c, Q(G(z, c))), L_d = adv + λ_r R, L_g = adv + λ_cls CE. P(C) is fixed; Q shares nothing with D.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentscale.latents.categories import prior_summary
from latentscale.latents.priors import Prior
from latentscale.losses.classification import cross_entropy, logits_of
from latentscale.methods.base import MethodSettings
from latentscale.methods.categorical import CategoricalMethod, FixedPriorSettings, drawn_category
from latentscale.methods.passes import adversarial_terms, compared_reals, discriminate, generator_loss, scores
from latentscale.methods.phase import Batch, Phase, Terms, weighted_terms
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.factory import NetworkSettings, build_classifier
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting


@dataclass
class CategoricalSettings(MethodSettings):
    classification_weight: float = setting(1.0, "λ_cls, weight of the cross entropy on fakes, for Q and G", above=0)


@dataclass
class CategoricalInfoGANSettings(CategoricalSettings, FixedPriorSettings):
    """The classifier's weight and the fixed P(C)."""


class DiscriminatorPhase(Phase):
    """L_d = adv + λ_r R and L_q = λ_cls CE."""

    name = "discriminator"
    settings: CategoricalSettings
    discriminator: nn.Module
    classifier: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, c_f = self.settings, drawn_category(batch, "discriminator_category", self.sizes)
        with torch.no_grad():
            images = self.borrowed("generator")(batch.draws["discriminator_latent"], c_f)
        real = discriminate(self.discriminator, batch.real, batch, settings.r1)
        fake = discriminate(self.discriminator, images, batch, settings.r2)
        classification = cross_entropy(logits_of(self.classifier(images)), c_f, self.sizes)
        return weighted_terms(
            {
                **adversarial_terms(settings, real, fake),
                "classification": (settings.classification_weight, classification),
            },
            measured=scores(real, fake),
        )


class GeneratorPhase(Phase):
    """L_g = adv + λ_cls CE; its gradient passes through the frozen Q into G."""

    name = "generator"
    settings: CategoricalSettings
    generator: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, discriminator = self.settings, self.borrowed("discriminator")
        c_f = drawn_category(batch, "generator_category", self.sizes)
        images = self.generator(batch.draws["generator_latent"], c_f)
        real = compared_reals(settings, discriminator, batch)
        fake = discriminate(discriminator, images, batch)
        classification = cross_entropy(logits_of(self.borrowed("classifier")(images)), c_f, self.sizes)
        return weighted_terms(
            {
                "adversarial": (1.0, generator_loss(settings, real, fake)),
                "classification": (settings.classification_weight, classification),
            }
        )


class CategoricalInfoGAN(CategoricalMethod):
    """InfoGAN with categories among its latents, whose P(C) must be known."""

    name = "categorical_infogan"
    paper = "Chen et al. 2016; Cho 2025, §2.1.2, eq. 9-14"
    Settings = CategoricalInfoGANSettings
    categorical = True
    unaveraged = ("discriminator", "classifier")

    def __init__(
        self, settings: CategoricalInfoGANSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        self.statistics["category_prior"] = settings.fixed_prior(spec.categories)
        g, d, q = ({name: networks[name]} for name in ("generator", "discriminator", "classifier"))
        sizes = spec.categories
        self.phases = [DiscriminatorPhase(d | q, g, settings, sizes), GeneratorPhase(g, d | q, settings, sizes)]

    @classmethod
    def build_networks(cls, settings: Any, network: NetworkSettings, spec: ModelSpec) -> dict[str, nn.Module]:
        return {**super().build_networks(settings, network, spec), "classifier": build_classifier(network, spec)}

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=1)

    def summary(self) -> dict[str, Tensor]:
        return prior_summary(self.category_prior.probabilities)
