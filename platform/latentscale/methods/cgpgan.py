"""CGPGAN, classifier gradient penalty GAN: categories without labels and without a known P(C) (T eq. 42-48, alg. 5).

A classifier Q beside D learns the fakes' categories: L_q = λ_cls CE(c_f, Q(fake)) + λ_cgp L_cgp,
L_cgp = mean ‖∇_fake (1 − softmax(Q(fake))·c_f)²‖². Its argmax labels the reals of CAGAN's adversarial loss; G has that
loss alone. P(C) follows mean(q), q = softmax(Q(x)). Early in training q ← q − mean(q) + 1/d_c, so P(C) stays uniform.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
from latentscale.methods import conditional
from latentscale.methods.adversary import Side
from latentscale.methods.base import MethodSettings
from latentscale.methods.phase import Batch
from latentscale.networks.discriminator_output import DiscriminatorOutput, Heads
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
    prior_decay: float = setting(0.999, "a step's decay of P(C)", minimum=0, maximum=1)


class DiscriminatorPhase(conditional.DiscriminatorPhase):
    """L_d = adv + λ_r R and L_q, of networks that share nothing."""

    settings: CGPGANSettings
    classifier: nn.Module

    def real_category(self, batch: Batch) -> Tensor | None:
        return batch.kept["real_category"]

    def category_terms(self, real: Side, fake: Side, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        assert fake.category is not None
        settings, terms = self.settings, {}
        if settings.cgp_weight > 0:
            seen, squared = classify_with_gradient(self.classifier, fake.images, fake.category, self.sizes)
            terms["classifier_gradient_penalty"] = (settings.cgp_weight, squared.mean())
        else:
            seen = self.classifier(fake.images)
        loss = cross_entropy(logits_of(seen), fake.category, self.sizes)
        return {"classification": (settings.classification_weight, loss), **terms}

    def observed(self, fake: DiscriminatorOutput, batch: Batch) -> dict[str, Tensor]:
        return {"category_prior": batch.kept["real_probabilities"]}


class CGPGAN(conditional.ConditionalMethod):
    """Classifier gradient penalty GAN."""

    name = "cgpgan"
    paper = "T §3.5, eq. 42-48, alg. 5"
    Settings = CGPGANSettings
    categorical = True
    unaveraged = ("discriminator", "classifier")

    def __init__(
        self, settings: CGPGANSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        self.category_prior = CategoricalPrior(spec.categories, settings.prior_decay)
        self.statistics = {"category_prior": self.category_prior}
        players = self.networks["generator"], self.networks["discriminator"]
        phase = DiscriminatorPhase(settings, *players, spec.categories)
        phase.own(classifier=self.networks["classifier"])
        self.phases = [phase, conditional.GeneratorPhase(settings, *players, spec.categories)]

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
        return late_prior(settings.prior_start_step, steps)

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

    def latent_state(self) -> dict[str, Tensor]:
        return self.state()

    def summary(self) -> dict[str, Tensor]:
        return prior_summary(self.category_prior.probabilities)
