"""ACGAN, auxiliary classifier GAN, and its revision (T eq. 1-8).

D has one adversarial value a and the class logits Q. L_d = adv + L_cls(c_r, x) + L_cls(c_f, G(z, c_f)) and
L_g = adv + L_cls(c_f, G(z, c_f)), L_cls the cross entropy −c·log Q. The revised losses leave the fakes' term out of
L_d and weigh the others with λ_cls.
"""

from dataclasses import dataclass

from torch import Tensor

from latentscale.losses.classification import cross_entropy, logits_of
from latentscale.methods import conditional
from latentscale.methods.adversary import Side
from latentscale.methods.mixing import MixingSettings
from latentscale.methods.phase import Batch
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting


@dataclass
class ACGANSettings(MixingSettings):
    revised: bool = setting(False, "no classification of fakes in the discriminator's loss (T eq. 7-8)")
    classification_weight: float = setting(1.0, "λ_cls, weight of L_cls (T eq. 7-8; 1 in eq. 1-2)", above=0)


class Classified(conditional.Classified):
    """L_cls of both phases."""

    settings: ACGANSettings

    def classification(self, side: Side) -> tuple[float, Tensor]:
        """λ_cls, and the cross entropy of D's logits with the samples' categories."""
        assert side.category is not None
        loss = cross_entropy(logits_of(side.output), side.category, self.sizes)
        return self.settings.classification_weight, loss


class DiscriminatorPhase(Classified, conditional.DiscriminatorPhase):
    """L_d = adv + λ_cls (L_cls of reals + L_cls of fakes, unless revised) + λ_r R."""

    settings: ACGANSettings

    def category_terms(self, real: Side, fake: Side, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        terms = {"real_classification": self.classification(real)}
        return terms if self.settings.revised else {**terms, "fake_classification": self.classification(fake)}


class GeneratorPhase(Classified, conditional.GeneratorPhase):
    """L_g = adv + λ_cls L_cls of fakes."""

    settings: ACGANSettings

    def category_terms(self, fake: Side, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        return {"fake_classification": self.classification(fake)}


class ACGAN(conditional.LabelledMethod):
    """Auxiliary classifier GAN."""

    name = "acgan"
    paper = "T §2.1.1, eq. 1-8; mixed batches: T §3.1.1"
    Settings = ACGANSettings
    discriminator_phase = DiscriminatorPhase
    generator_phase = GeneratorPhase

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=1, classes=spec.category_dim)
