"""Elastic InfoGAN: categorical InfoGAN that learns P(C) by the generator's gradient.

Ojha et al. 2020; Cho 2025, §2.1.2, §4.5.1. Categories are soft Gumbel-softmax samples of P(C) = softmax(parameter), in
both phases and in the cross entropy. The parameter is trained with G by the gradient of L_g, from a start step on; Q
and D are as in categorical InfoGAN.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from latentscale.latents.categories import TrainablePrior, gumbel, late_prior, prior_summary
from latentscale.latents.draws import Purpose
from latentscale.latents.priors import Prior
from latentscale.losses.classification import cross_entropy, logits_of
from latentscale.methods.base import Draw
from latentscale.methods.categorical import CategoricalMethod
from latentscale.methods.categorical_infogan import CategoricalSettings
from latentscale.methods.contrastive import (
    ContrastiveSettings,
    check_contrastive,
    check_views,
    contrastive_terms,
    view_draws,
)
from latentscale.methods.passes import adversarial_terms, compared_reals, discriminate, generator_loss, scores
from latentscale.methods.phase import Batch, ParameterGroup, Phase, Terms, weighted_terms
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.factory import NetworkSettings, build_classifier
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting


@dataclass
class ElasticInfoGANSettings(ContrastiveSettings, CategoricalSettings):
    temperature: float = setting(0.3, "τ of the Gumbel-softmax samples (Cho 2025 tries 0.1, 0.3, 1)", above=0)
    prior_learning_rate: float = setting(
        3e-4, "learning rate of P(C)'s parameter, which has no weight decay (Cho 2025: 1e-4, 3e-4, 1e-3)", above=0
    )
    prior_start_step: int = setting(60000, "until this step P(C) stays uniform", unit="steps", minimum=0)


class DiscriminatorPhase(Phase):
    """L_d = adv + λ_r R, and L_q = λ_cls CE on soft categories; reals enter L_q by the contrastive loss alone."""

    name = "discriminator"
    settings: ElasticInfoGANSettings
    discriminator: nn.Module
    classifier: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings = self.settings
        c_f = soft_category(self.borrowed("prior"), batch, "discriminator_category", settings.temperature)
        with torch.no_grad():
            images = self.borrowed("generator")(batch.draws["discriminator_latent"], c_f)
        real = discriminate(self.discriminator, batch.real, batch, settings.r1)
        fake = discriminate(self.discriminator, images, batch, settings.r2)
        classification = cross_entropy(logits_of(self.classifier(images)), c_f, self.sizes)
        return weighted_terms(
            {
                **adversarial_terms(settings, real, fake),
                "classification": (settings.classification_weight, classification),
                **contrastive_terms(settings, self.classifier, batch),
            },
            measured=scores(real, fake),
        )


class GeneratorPhase(Phase):
    """L_g = adv + λ_cls CE on soft categories, through which its gradient reaches P(C)."""

    name = "generator"
    settings: ElasticInfoGANSettings
    generator: nn.Module
    prior: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, discriminator = self.settings, self.borrowed("discriminator")
        c_f = soft_category(self.prior, batch, "generator_category", settings.temperature)
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

    def parameter_groups(self) -> list[ParameterGroup]:
        return [
            ParameterGroup(list(self.generator.parameters())),
            ParameterGroup(self.freezable(), self.settings.prior_learning_rate, weight_decay=0.0),
        ]

    def freezable(self) -> list[nn.Parameter]:
        return list(self.prior.parameters())

    def frozen_this_step(self, schedule: Mapping[str, float]) -> bool:
        return not schedule["prior_moves"]


def soft_category(prior: nn.Module, batch: Batch, draw: str, temperature: float) -> Tensor:
    """``[b, Σ d_c]`` Gumbel-softmax samples of P(C), computed from the noise ``draws[draw]``."""
    category: Tensor = prior(batch.draws[draw], temperature)
    return category.to(batch.real.dtype)


class ElasticInfoGAN(CategoricalMethod):
    """InfoGAN with categories whose P(C) is learnt."""

    name = "elastic_infogan"
    paper = "Ojha et al. 2020; Cho 2025, §2.1.2, §4.5.1"
    Settings = ElasticInfoGANSettings
    categorical = True
    unaveraged = ("discriminator", "classifier", "prior")

    def __init__(
        self, settings: ElasticInfoGANSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        g, d, q, p = ({name: networks[name]} for name in ("generator", "discriminator", "classifier", "prior"))
        sizes = spec.categories
        self.phases = [
            DiscriminatorPhase(d | q, g | p, settings, sizes),
            GeneratorPhase(g | p, d | q, settings, sizes),
        ]

    @classmethod
    def build_networks(cls, settings: Any, network: NetworkSettings, spec: ModelSpec) -> dict[str, nn.Module]:
        check_views(settings, spec)
        return {
            **super().build_networks(settings, network, spec),
            "classifier": build_classifier(network, spec),
            "prior": TrainablePrior(spec.categories),
        }

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=1)

    def draws(self) -> dict[str, Draw]:
        size = self.spec.category_dim
        return (
            super().draws()
            | view_draws(self.settings)
            | {
                "discriminator_category": Draw(Purpose.DISCRIMINATOR_NOISE, size, gumbel),
                "generator_category": Draw(Purpose.GENERATOR_NOISE, size, gumbel),
            }
        )

    @classmethod
    def validate(cls, settings: ElasticInfoGANSettings, law: str, stream_batch: int) -> None:
        check_contrastive(settings, stream_batch)

    @classmethod
    def remarks(cls, settings: Any, steps: int) -> list[str]:
        return super().remarks(settings, steps) + late_prior(settings.prior_start_step, steps)

    def schedule(self, step: int, stream_batch: int) -> dict[str, float]:
        return {"prior_moves": float(step >= self.settings.prior_start_step)}

    def state(self) -> dict[str, Tensor]:
        return {}  # P(C) is a network's

    @torch.no_grad()
    def latent_state(self) -> dict[str, Tensor]:
        return {"category_prior": cast(TrainablePrior, self.networks["prior"]).probabilities()}

    def summary(self) -> dict[str, Tensor]:
        return prior_summary(self.latent_state()["category_prior"])
