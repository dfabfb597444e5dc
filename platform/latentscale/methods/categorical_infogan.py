"""Categorical InfoGAN: G and a classifier Q agree on the category of every fake (T eq. 9-14).

L_q = λ_cls CE(c, Q(G(z, c))), L_d = adv + λ_r R, L_g = adv + λ_cls CE. P(C) is fixed; Q shares nothing with D.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from latentscale.latents.priors import Prior
from latentscale.losses.classification import cross_entropy, logits_of
from latentscale.methods import adversarial, vanilla
from latentscale.methods.adversary import FixedPriorSettings, Side
from latentscale.methods.base import MethodSettings
from latentscale.methods.phase import Batch
from latentscale.networks.factory import NetworkSettings, build_classifier
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting


@dataclass
class CategoricalSettings(MethodSettings):
    classification_weight: float = setting(1.0, "λ_cls, weight of the cross entropy on fakes, for Q and G", above=0)


@dataclass
class CategoricalInfoGANSettings(CategoricalSettings, FixedPriorSettings):
    """The classifier's weight and the fixed P(C)."""


class DiscriminatorPhase(adversarial.DiscriminatorPhase):
    """L_d = adv + λ_r R and L_q = λ_cls CE."""

    settings: CategoricalSettings
    classifier: nn.Module

    def category_terms(self, real: Side, fake: Side, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        return classification(self.settings, self.classifier, fake, self.sizes)


class GeneratorPhase(adversarial.GeneratorPhase):
    """L_g = adv + λ_cls CE; its gradient passes through the frozen Q into G."""

    settings: CategoricalSettings

    def category_terms(self, fake: Side, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        return classification(self.settings, self.borrowed("classifier"), fake, self.sizes)


class CategoricalInfoGAN(vanilla.Vanilla):
    """InfoGAN with categories among its latents, whose P(C) must be known."""

    name = "categorical_infogan"
    paper = "Chen et al. 2016; T §2.1.2, eq. 9-14"
    unaveraged: ClassVar[tuple[str, ...]] = ("discriminator", "classifier")
    Settings: ClassVar[type[MethodSettings]] = CategoricalInfoGANSettings
    categories_optional = False
    discriminator_phase = DiscriminatorPhase
    generator_phase = GeneratorPhase

    def __init__(
        self, settings: CategoricalSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        discriminator_phase, generator_phase = self.phases
        discriminator_phase.own(classifier=self.networks["classifier"])
        generator_phase.borrow(classifier=self.networks["classifier"])

    @classmethod
    def build_networks(cls, settings: Any, network: NetworkSettings, spec: ModelSpec) -> dict[str, nn.Module]:
        return {**super().build_networks(settings, network, spec), "classifier": build_classifier(network, spec)}


def classification(
    settings: CategoricalSettings, classifier: nn.Module, fake: Side, sizes: tuple[int, ...]
) -> dict[str, tuple[float, Tensor]]:
    """λ_cls CE(c, Q(fake)) of one phase's fakes, the same for Q and G: the term by its name, with its weight."""
    assert fake.category is not None
    loss = cross_entropy(logits_of(classifier(fake.images)), fake.category, sizes)
    return {"classification": (settings.classification_weight, loss)}
