"""Elastic InfoGAN: categorical InfoGAN that learns P(C) by the generator's gradient (T §2.1.2, §4.5.1).

Categories are soft Gumbel-softmax samples of P(C) = softmax(parameter), in both phases and in the cross entropy. The
parameter is trained with G by the gradient of L_g, from a start step on; Q and D are as in categorical InfoGAN.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentscale.latents.categories import TrainablePrior, gumbel, late_prior, prior_summary, uniform_prior
from latentscale.latents.draws import Purpose
from latentscale.latents.priors import Prior
from latentscale.methods import categorical_infogan
from latentscale.methods.adversary import Side
from latentscale.methods.base import Draw
from latentscale.methods.contrastive import (
    ContrastiveSettings,
    check_contrastive,
    check_views,
    contrastive_terms,
    view_draws,
)
from latentscale.methods.phase import Batch, ParameterGroup
from latentscale.networks.factory import NetworkSettings
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting


@dataclass
class ElasticInfoGANSettings(ContrastiveSettings, categorical_infogan.CategoricalSettings):
    temperature: float = setting(0.3, "τ of the Gumbel-softmax samples (T tries 0.1, 0.3, 1)", above=0)
    prior_learning_rate: float = setting(
        3e-4, "of P(C)'s parameter, without weight decay (T: 1e-4, 3e-4, 1e-3)", above=0
    )
    prior_start_step: int = setting(60000, "until this step P(C) stays uniform", unit="steps", minimum=0)


class DiscriminatorPhase(categorical_infogan.DiscriminatorPhase):
    """L_d, and L_q on soft categories; reals enter L_q by the contrastive loss alone."""

    settings: ElasticInfoGANSettings

    def fake_category(self, draw: str, batch: Batch) -> Tensor | None:
        category: Tensor = self.borrowed("prior")(batch.draws[draw], self.settings.temperature)
        return category.to(batch.real.dtype)

    def category_terms(self, real: Side, fake: Side, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        return super().category_terms(real, fake, batch) | contrastive_terms(self.settings, self.classifier, batch)


class GeneratorPhase(categorical_infogan.GeneratorPhase):
    """L_g on soft categories, through which its gradient reaches P(C)."""

    settings: ElasticInfoGANSettings
    prior: nn.Module

    def fake_category(self, draw: str, batch: Batch) -> Tensor | None:
        category: Tensor = self.prior(batch.draws[draw], self.settings.temperature)
        return category.to(batch.real.dtype)

    def parameter_groups(self) -> list[ParameterGroup]:
        return [
            ParameterGroup(list(self.generator.parameters())),
            ParameterGroup(self.freezable(), self.settings.prior_learning_rate, weight_decay=0.0),
        ]

    def freezable(self) -> list[nn.Parameter]:
        return list(self.prior.parameters())

    def frozen_this_step(self, schedule: Mapping[str, float]) -> bool:
        return not schedule["prior_moves"]


class ElasticInfoGAN(categorical_infogan.CategoricalInfoGAN):
    """InfoGAN with categories whose P(C) is learnt."""

    name = "elastic_infogan"
    paper = "Ojha et al. 2020; T §2.1.2, §4.5.1"
    Settings = ElasticInfoGANSettings
    unaveraged = ("discriminator", "classifier", "prior")
    discriminator_phase = DiscriminatorPhase
    generator_phase = GeneratorPhase

    def __init__(
        self, settings: ElasticInfoGANSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        self.statistics = {}  # P(C) is a network's
        discriminator_phase, generator_phase = self.phases
        discriminator_phase.borrow(prior=self.networks["prior"])
        generator_phase.own(prior=self.networks["prior"])

    @classmethod
    def fixed_probabilities(cls, settings: Any, spec: ModelSpec) -> Tensor:
        return uniform_prior(spec.categories)

    @classmethod
    def build_networks(cls, settings: Any, network: NetworkSettings, spec: ModelSpec) -> dict[str, nn.Module]:
        check_views(settings, spec)
        return {**super().build_networks(settings, network, spec), "prior": TrainablePrior(spec.categories)}

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
        return late_prior(settings.prior_start_step, steps)

    def schedule(self, step: int, stream_batch: int) -> dict[str, float]:
        return {"prior_moves": float(step >= self.settings.prior_start_step)}

    @torch.no_grad()
    def latent_state(self) -> dict[str, Tensor]:
        trained = self.networks["prior"]
        assert isinstance(trained, TrainablePrior)
        return {"category_prior": trained.probabilities()}

    def summary(self) -> dict[str, Tensor]:
        return prior_summary(self.latent_state()["category_prior"])
