"""The vanilla GAN: adversarial losses and penalties alone (T eq. 49-51).

With ``latent.categories`` the generator also takes categories, drawn from a fixed P(C).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from latentscale.latents.categories import CategoricalPrior, chosen_prior, prior_summary
from latentscale.latents.priors import Prior
from latentscale.methods.adversarial import DiscriminatorPhase, GeneratorPhase
from latentscale.methods.adversary import FixedPriorSettings, category_draws
from latentscale.methods.base import Draw, Method, MethodSettings
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.factory import NetworkSettings, build_conditional_generator
from latentscale.networks.spec import ModelSpec


class Vanilla(Method):
    """The GAN without an encoder: adversarial loss and penalties alone; P(C), where there are categories, is fixed."""

    name = "vanilla"
    paper = "Goodfellow et al. 2014; T eq. 49-51"
    Settings: ClassVar[type[MethodSettings]] = FixedPriorSettings
    categorical = True
    unaveraged: ClassVar[tuple[str, ...]] = ("discriminator",)
    categories_optional = True
    discriminator_phase: ClassVar[type[DiscriminatorPhase]] = DiscriminatorPhase
    generator_phase: ClassVar[type[GeneratorPhase]] = GeneratorPhase

    def __init__(
        self, settings: MethodSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        if spec.categories:
            # a statistic that nothing observes stays as it is
            start = self.fixed_probabilities(settings, spec)
            self.statistics = {"category_prior": CategoricalPrior(spec.categories, start=start)}
        players = self.networks["generator"], self.networks["discriminator"]
        self.phases = [
            self.discriminator_phase(settings, *players, spec.categories),
            self.generator_phase(settings, *players, spec.categories),
        ]

    @classmethod
    def fixed_probabilities(cls, settings: Any, spec: ModelSpec) -> Tensor:
        """``[Σ d_c]`` the P(C) of the settings.

        Raises:
            UserError: naming the setting, unless each label's part sums to 1.
        """
        return chosen_prior(settings.category_probabilities, spec.categories)

    @classmethod
    def build_networks(cls, settings: Any, network: NetworkSettings, spec: ModelSpec) -> dict[str, nn.Module]:
        cls.fixed_probabilities(settings, spec)
        networks = super().build_networks(settings, network, spec)
        return {**networks, "generator": build_conditional_generator(network, spec)} if spec.categories else networks

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=1)

    def draws(self) -> dict[str, Draw]:
        return super().draws() | category_draws(self.spec)

    def state(self) -> dict[str, Tensor]:
        return {name: prior.probabilities for name, prior in self.statistics.items()}  # type: ignore[attr-defined]

    def latent_state(self) -> dict[str, Tensor]:
        return self.state()

    def summary(self) -> dict[str, Tensor]:
        return prior_summary(self.state()["category_prior"]) if self.spec.categories else {}
