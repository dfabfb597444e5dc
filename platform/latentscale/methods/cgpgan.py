"""CGPGAN, classifier gradient penalty GAN: categories without labels and without a known P(C).

Cho 2025, eq. 42-48, alg. 5. A classifier Q, separate from D, learns the fakes' categories:
L_q = λ_cls CE(c_f, Q(fake)) + λ_cgp L_cgp, L_cgp = mean ‖∇_fake (1 − softmax(Q(fake))·c_f)²‖². Its argmax labels the
reals of CAGAN's adversarial loss; G has that loss alone. P(C) follows mean(q), q = softmax(Q(x)). Early in training
q ← q − mean(q) + 1/d_c, so P(C) stays uniform.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentscale.latents.categories import (
    CategoricalPrior,
    balanced,
    late_prior,
    most_likely,
    prior_summary,
    probabilities,
)
from latentscale.latents.priors import Prior
from latentscale.losses.classification import classify_with_gradient, cross_entropy, logits_of
from latentscale.methods.base import MethodSettings
from latentscale.methods.categorical import CategoricalMethod, drawn_category
from latentscale.methods.passes import (
    adversarial_terms,
    category_value,
    compared_reals,
    discriminate,
    generator_loss,
    scores,
)
from latentscale.methods.phase import Batch, Phase, Terms, Weighted, weighted_terms
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.factory import NetworkSettings, build_classifier
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting


@dataclass
class CGPGANSettings(MethodSettings):
    r1: float = setting(0.0, "weight of R1 = mean ‖∇a‖² on reals, no factor ½", minimum=0)
    r2: float = setting(1.0, "weight of R2, the same on fakes, whose labels are known", minimum=0)
    classification_weight: float = setting(1.0, "λ_cls, weight of Q's cross entropy on fakes", above=0)
    cgp_weight: float = setting(
        10.0, "λ_cgp, weight of the classifier gradient penalty: the larger, the fewer categories survive", minimum=0
    )
    prior_start_step: int = setting(
        60000, "until this step reals' classes are balanced and P(C) stays uniform", unit="steps", minimum=0
    )
    prior_decay: float = setting(0.999, "decay of P(C) per step", minimum=0, maximum=1)


class DiscriminatorPhase(Phase):
    """L_d = adv + λ_r R of D, and L_q = λ_cls CE + λ_cgp L_cgp of Q; the two share nothing."""

    name = "discriminator"
    settings: CGPGANSettings
    discriminator: nn.Module
    classifier: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, sizes, c_r = self.settings, self.sizes, batch.kept["real_category"]
        c_f = drawn_category(batch, "discriminator_category", sizes)
        with torch.no_grad():
            images = self.borrowed("generator")(batch.draws["discriminator_latent"], c_f)
        real = discriminate(self.discriminator, batch.real, batch, settings.r1, category_value(c_r, sizes))
        fake = discriminate(self.discriminator, images, batch, settings.r2, category_value(c_f, sizes))
        return weighted_terms(
            adversarial_terms(settings, real, fake) | classifier_terms(settings, self.classifier, images, c_f, sizes),
            observed={"category_prior": batch.kept["real_probabilities"]},
            measured=scores(real, fake),
        )


class GeneratorPhase(Phase):
    """L_g = adv."""

    name = "generator"
    settings: CGPGANSettings
    generator: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, discriminator, c_r = self.settings, self.borrowed("discriminator"), batch.kept["real_category"]
        c_f = drawn_category(batch, "generator_category", self.sizes)
        images = self.generator(batch.draws["generator_latent"], c_f)
        real = compared_reals(settings, discriminator, batch, category_value(c_r, self.sizes))
        fake = discriminate(discriminator, images, batch, value=category_value(c_f, self.sizes))
        return weighted_terms({"adversarial": (1.0, generator_loss(settings, real, fake))})


def classifier_terms(
    settings: CGPGANSettings, classifier: nn.Module, images: Tensor, c_f: Tensor, sizes: tuple[int, ...]
) -> Weighted:
    """L_q of fakes ``[b, …]`` and their categories ``[b, Σ d_c]``: λ_cls CE + λ_cgp L_cgp, in one pass of Q."""
    terms: Weighted = {}
    if settings.cgp_weight > 0:
        seen, squared_gradient = classify_with_gradient(classifier, images, c_f, sizes)
        terms["classifier_gradient_penalty"] = (settings.cgp_weight, squared_gradient.mean())
    else:
        seen = classifier(images)
    return {"classification": (settings.classification_weight, cross_entropy(logits_of(seen), c_f, sizes)), **terms}


class CGPGAN(CategoricalMethod):
    """Classifier gradient penalty GAN."""

    name = "cgpgan"
    paper = "Cho 2025, §3.5, eq. 42-48, alg. 5"
    Settings = CGPGANSettings
    categorical = True
    unaveraged = ("discriminator", "classifier")

    def __init__(
        self, settings: CGPGANSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        self.statistics["category_prior"] = CategoricalPrior(spec.categories, settings.prior_decay)
        g, d, q = ({name: networks[name]} for name in ("generator", "discriminator", "classifier"))
        sizes = spec.categories
        self.phases = [DiscriminatorPhase(d | q, g, settings, sizes), GeneratorPhase(g, d, settings, sizes)]

    @classmethod
    def build_networks(
        cls, settings: CGPGANSettings, network: NetworkSettings, spec: ModelSpec
    ) -> dict[str, nn.Module]:
        return {**super().build_networks(settings, network, spec), "classifier": build_classifier(network, spec)}

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=spec.category_dim)

    @classmethod
    def remarks(cls, settings: Any, steps: int) -> list[str]:
        return super().remarks(settings, steps) + late_prior(settings.prior_start_step, steps)

    def schedule(self, step: int, stream_batch: int) -> dict[str, float]:
        return {"prior_moves": float(step >= self.settings.prior_start_step)}

    def prepare(self, batch: Batch) -> dict[str, Tensor]:
        logits = logits_of(self.networks["classifier"](batch.real))
        return {"real_probabilities": probabilities(logits, self.spec.categories)}

    def prepared(self, batch: Batch, samples: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> dict[str, Tensor]:
        predicted, sizes = samples["real_probabilities"], self.spec.categories
        if not batch.schedule["prior_moves"]:
            # before the argmax, so that the reals' labels are about as many in each category as the fakes'
            predicted = balanced(predicted, means["real_probabilities"], sizes)
        return {"real_probabilities": predicted, "real_category": most_likely(predicted, sizes).to(batch.real.dtype)}

    def summary(self) -> dict[str, Tensor]:
        return prior_summary(self.category_prior.probabilities)
