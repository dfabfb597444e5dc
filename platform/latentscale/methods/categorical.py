"""What methods with categories share: P(C), the categories of reals and fakes, and a generator that takes them."""

from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from latentscale.latents.categories import CategoricalPrior, chosen_prior, draw_categories, one_hot
from latentscale.latents.draws import Purpose
from latentscale.methods.base import Draw, Method, MethodSettings
from latentscale.methods.passes import Value, label_values
from latentscale.methods.phase import Batch
from latentscale.networks.factory import (
    NetworkSettings,
    build_conditional_generator,
    build_discriminator,
    build_generator,
)
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting


@dataclass
class FixedPriorSettings(MethodSettings):
    category_probabilities: list[float] = setting(
        factory=list,
        help="the fixed P(C), all labels side by side, e.g. [0.1,0.2,0.3,0.4]; empty is uniform",
        minimum=0,
        maximum=1,
    )

    def fixed_prior(self, sizes: tuple[int, ...]) -> CategoricalPrior:
        """The P(C) of the settings, which no phase observes.

        Raises:
            UserError: naming the setting, unless each label's part sums to 1.
        """
        return CategoricalPrior(sizes, start=chosen_prior(self.category_probabilities, sizes))


def label_category(batch: Batch, sizes: tuple[int, ...]) -> Tensor:
    """``[b, Σ d_c]`` one-hots of the reals' labels."""
    assert batch.labels is not None
    return one_hot(batch.labels, sizes).to(batch.real.dtype)


def label_value(batch: Batch, sizes: tuple[int, ...]) -> Value:
    """The values a·c of the reals, whose categories are their labels."""
    return lambda output: label_values(output.adversarial, label_category(batch, sizes), sizes)


def drawn_category(batch: Batch, draw: str, sizes: tuple[int, ...]) -> Tensor:
    """``[b, Σ d_c]`` one-hots drawn from P(C), computed from the uniforms ``draws[draw]`` by inverse CDF."""
    return draw_categories(batch.draws[draw], batch.state["category_prior"], sizes).to(batch.real.dtype)


def category_draws(spec: ModelSpec) -> dict[str, Draw]:
    """What the categories of both phases' fakes are drawn from: one uniform per label and sample.

    They become categories on the device, where P(C) is. Without labels there are none.
    """
    labels = len(spec.categories)
    if not labels:
        return {}
    return {
        "discriminator_category": Draw(Purpose.DISCRIMINATOR_CATEGORY, labels, identity),
        "generator_category": Draw(Purpose.GENERATOR_CATEGORY, labels, identity),
    }


def identity(uniforms: Tensor) -> Tensor:
    """The uniforms as they are."""
    return uniforms


class CategoricalMethod(Method):
    """A method whose generator takes categories: those of the spec, if any.

    They are drawn from the statistic ``category_prior``, which stays as it is where no phase observes it.
    """

    @property
    def category_prior(self) -> CategoricalPrior:
        """P(C), of a method that has categories."""
        return cast(CategoricalPrior, self.statistics["category_prior"])

    @classmethod
    def build_networks(cls, settings: Any, network: NetworkSettings, spec: ModelSpec) -> dict[str, nn.Module]:
        if isinstance(settings, FixedPriorSettings):
            settings.fixed_prior(spec.categories)  # refused before anything is built
        return {
            "generator": build_conditional_generator(network, spec)
            if spec.categories
            else build_generator(network, spec.latent_dim, spec.shape),
            "discriminator": build_discriminator(network, spec.latent_dim, spec.shape, cls.heads(spec)),
        }

    def draws(self) -> dict[str, Draw]:
        return super().draws() | category_draws(self.spec)

    def state(self) -> dict[str, Tensor]:
        return {"category_prior": self.category_prior.probabilities} if self.spec.categories else {}

    def latent_state(self) -> dict[str, Tensor]:
        return self.state()
