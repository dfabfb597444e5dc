"""ACGAN, auxiliary classifier GAN, and its revision (Cho 2025, eq. 1-8).

D has one adversarial value a and the class logits Q. L_d = adv + L_cls(c_r, x) + L_cls(c_f, G(z, c_f)) and
L_g = adv + L_cls(c_f, G(z, c_f)), L_cls the cross entropy −c·log Q. The revised losses leave the fakes' term out of
L_d and weight the others by λ_cls.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentscale.latents.priors import Prior
from latentscale.losses.classification import cross_entropy, logits_of
from latentscale.methods.categorical import CategoricalMethod, drawn_category, label_category
from latentscale.methods.mixing import (
    MixingSettings,
    check_pairs,
    discriminator_passes,
    generator_passes,
    mixed_samples,
)
from latentscale.methods.passes import Value, adversarial_terms, generator_loss, scores, single_value
from latentscale.methods.phase import Batch, Phase, Terms, weighted_terms
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting


@dataclass
class ACGANSettings(MixingSettings):
    revised: bool = setting(False, "no classification of fakes in the discriminator's loss (Cho 2025, eq. 7-8)")
    classification_weight: float = setting(1.0, "λ_cls, weight of L_cls (Cho 2025, eq. 7-8; 1 in eq. 1-2)", above=0)


class DiscriminatorPhase(Phase):
    """L_d = adv + λ_cls (L_cls of reals + L_cls of fakes, unless revised) + λ_r R."""

    name = "discriminator"
    settings: ACGANSettings
    discriminator: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, sizes = self.settings, self.sizes
        c_r, c_f = label_category(batch, sizes), drawn_category(batch, "discriminator_category", sizes)
        with torch.no_grad():
            images = self.borrowed("generator")(batch.draws["discriminator_latent"], c_f)
        real, fake = discriminator_passes(settings, self.discriminator, images, c_r, c_f, batch, any_category)
        terms = adversarial_terms(settings, real, fake)
        of_reals = cross_entropy(logits_of(real.output), c_r, sizes)
        terms["real_classification"] = (settings.classification_weight, of_reals)
        if not settings.revised:
            of_fakes = cross_entropy(logits_of(fake.output), c_f, sizes)
            terms["fake_classification"] = (settings.classification_weight, of_fakes)
        return weighted_terms(terms, measured=scores(real, fake))


class GeneratorPhase(Phase):
    """L_g = adv + λ_cls L_cls of fakes; the step's own reals fill its mixed batches."""

    name = "generator"
    settings: ACGANSettings
    generator: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, discriminator, sizes = self.settings, self.borrowed("discriminator"), self.sizes
        c_f = drawn_category(batch, "generator_category", sizes)
        images = self.generator(batch.draws["generator_latent"], c_f)
        real, fake = generator_passes(settings, discriminator, images, batch, single_value, single_value)
        classification = cross_entropy(logits_of(fake.output), c_f, sizes)
        return weighted_terms(
            {
                "adversarial": (1.0, generator_loss(settings, real, fake)),
                "fake_classification": (settings.classification_weight, classification),
            }
        )


def any_category(category: Tensor) -> Value:
    """D's one value a(x), whatever the category: the classifier judges that."""
    return single_value


class ACGAN(CategoricalMethod):
    """Auxiliary classifier GAN."""

    name = "acgan"
    paper = "Cho 2025, §2.1.1, eq. 1-8; mixed batches: §3.1.1"
    Settings = ACGANSettings
    labelled = True
    unaveraged = ("discriminator",)

    def __init__(
        self, settings: ACGANSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        self.statistics["category_prior"] = settings.fixed_prior(spec.categories)
        g, d = {"generator": networks["generator"]}, {"discriminator": networks["discriminator"]}
        sizes = spec.categories
        self.phases = [DiscriminatorPhase(d, g, settings, sizes), GeneratorPhase(g, d, settings, sizes)]

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=1, classes=spec.category_dim)

    @classmethod
    def validate(cls, settings: ACGANSettings, law: str, stream_batch: int) -> None:
        check_pairs(settings, stream_batch)

    def schedule(self, step: int, stream_batch: int) -> dict[str, float]:
        return {"mixed_samples": mixed_samples(self.settings.mixing_ratio(step), stream_batch)}
