"""CAGAN, conditional activation GAN: a GAN for every category, which share all hidden layers (Cho 2025, eq. 25-30).

D has d_l·d_c adversarial outputs, those of all labels side by side; the value a·c of a sample is, for every label,
the output of the sample's own category. The adversarial loss is applied per label and averaged over labels. There is
no classification loss. A binary attribute is a label of two categories.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import nn

from latentscale.latents.priors import Prior
from latentscale.methods.categorical import CategoricalMethod, drawn_category, label_category, label_value
from latentscale.methods.mixing import (
    MixingSettings,
    check_pairs,
    discriminator_passes,
    generator_passes,
    mixed_samples,
)
from latentscale.methods.passes import adversarial_terms, category_value, generator_loss, scores
from latentscale.methods.phase import Batch, Phase, Terms, weighted_terms
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.spec import ModelSpec


class DiscriminatorPhase(Phase):
    """L_d = A_d(D(x)·c_r, D(G(z, c_f))·c_f) + λ_r R (Cho 2025, eq. 29)."""

    name = "discriminator"
    settings: MixingSettings
    discriminator: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, value = self.settings, partial(category_value, sizes=self.sizes)
        c_r = label_category(batch, self.sizes)
        c_f = drawn_category(batch, "discriminator_category", self.sizes)
        with torch.no_grad():
            images = self.borrowed("generator")(batch.draws["discriminator_latent"], c_f)
        real, fake = discriminator_passes(settings, self.discriminator, images, c_r, c_f, batch, value)
        return weighted_terms(adversarial_terms(settings, real, fake), measured=scores(real, fake))


class GeneratorPhase(Phase):
    """L_g = A_g(D(G(z, c_f))·c_f) (Cho 2025, eq. 30); the step's own reals fill its mixed batches."""

    name = "generator"
    settings: MixingSettings
    generator: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, discriminator, sizes = self.settings, self.borrowed("discriminator"), self.sizes
        c_f = drawn_category(batch, "generator_category", sizes)
        images = self.generator(batch.draws["generator_latent"], c_f)
        values = label_value(batch, sizes), category_value(c_f, sizes)
        real, fake = generator_passes(settings, discriminator, images, batch, *values)
        return weighted_terms({"adversarial": (1.0, generator_loss(settings, real, fake))})


class CAGAN(CategoricalMethod):
    """Conditional activation GAN."""

    name = "cagan"
    paper = "Cho 2025, §3.1, eq. 25-30; mixed batches: §3.1.1"
    Settings = MixingSettings
    labelled = True
    unaveraged = ("discriminator",)

    def __init__(
        self, settings: MixingSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        self.statistics["category_prior"] = settings.fixed_prior(spec.categories)
        g, d = {"generator": networks["generator"]}, {"discriminator": networks["discriminator"]}
        sizes = spec.categories
        self.phases = [DiscriminatorPhase(d, g, settings, sizes), GeneratorPhase(g, d, settings, sizes)]

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=spec.category_dim)

    @classmethod
    def validate(cls, settings: MixingSettings, law: str, stream_batch: int) -> None:
        check_pairs(settings, stream_batch)

    def schedule(self, step: int, stream_batch: int) -> dict[str, float]:
        return {"mixed_samples": mixed_samples(self.settings.mixing_ratio(step), stream_batch)}
