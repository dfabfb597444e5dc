"""What all methods with categories share: categories of reals and fakes, values a·c per label, mixed batches.

D has an adversarial value for every category; the value of a sample is a·c for each label, the adversarial loss is
taken per label and averaged (T eq. 25-30).
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from latentscale.latents.categories import CategoricalPrior, chosen_prior, one_hot
from latentscale.latents.priors import Prior
from latentscale.latents.scale import at_least_float32
from latentscale.methods import adversarial
from latentscale.methods.adversary import Adversary, Seen, category_draws, discriminate, in_streams
from latentscale.methods.base import Draw, Method
from latentscale.methods.mixing import MixingSettings, join_rows, mixed_rows, mixed_samples
from latentscale.methods.phase import Batch
from latentscale.networks.discriminator_output import DiscriminatorOutput
from latentscale.networks.factory import NetworkSettings, build_conditional_generator, build_discriminator
from latentscale.networks.spec import ModelSpec


def label_values(scores: Tensor, category: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """``[b, Σ d_c]`` scores and one-hots to a·c of each label, ``[b, d_l]``, in float32 or above."""
    chosen = at_least_float32(scores) * category
    return torch.stack([part.sum(1) for part in chosen.split(list(sizes), dim=1)], dim=1)


class Conditional(Adversary):
    """Both phases of a method whose D has a value for every category: the value is that of the sample's own."""

    def values(self, output: DiscriminatorOutput, category: Tensor | None) -> Tensor:
        assert category is not None
        return label_values(output.adversarial, category, self.sizes)


class Classified(Conditional):
    """Both phases of a method whose D has one adversarial value whatever the category, which a classifier judges."""

    def values(self, output: DiscriminatorOutput, category: Tensor | None) -> Tensor:
        return at_least_float32(output.adversarial)


class DiscriminatorPhase(Conditional, adversarial.DiscriminatorPhase):
    """D's step with categories; the reals' are their labels."""

    def real_category(self, batch: Batch) -> Tensor | None:
        assert batch.labels is not None
        return one_hot(batch.labels, self.sizes).to(batch.real.dtype)

    def penalised(self, category: Tensor | None) -> Callable[[DiscriminatorOutput], Tensor]:
        return lambda output: self.values(output, category).mean(1)

    def discriminate(
        self, fake_images: Tensor, c_r: Tensor | None, c_f: Tensor | None, batch: Batch
    ) -> tuple[Seen, Seen]:
        rows = mixed_rows(batch)
        if rows == 0:
            return super().discriminate(fake_images, c_r, c_f, batch)
        assert c_r is not None
        assert c_f is not None
        weight = max(self.settings.r1, self.settings.r2)
        discriminator = in_streams(self.discriminator, batch)
        seen = []
        for first, last, c_first, c_last in ((batch.real, fake_images, c_r, c_f), (fake_images, batch.real, c_f, c_r)):
            category = torch.cat([c_first[:rows], c_last[rows:]])
            mixed = torch.cat([first[:rows], last[rows:]])
            seen.append(discriminate(discriminator, mixed, weight, batch.penalise, self.penalised(category)))
        (a, a_gradient), (b, b_gradient) = seen
        real, fake = join_rows(a, b, rows), join_rows(b, a, rows)
        if a_gradient is None or b_gradient is None:
            return (real, None), (fake, None)
        r1, r2 = torch.cat([a_gradient[:rows], b_gradient[rows:]]), torch.cat([b_gradient[:rows], a_gradient[rows:]])
        return (real, r1 if self.settings.r1 > 0 else None), (fake, r2 if self.settings.r2 > 0 else None)


class GeneratorPhase(Conditional, adversarial.GeneratorPhase):
    """G's step with categories; the step's own reals fill its mixed batches."""

    def discriminate(self, images: Tensor, batch: Batch) -> DiscriminatorOutput:
        rows = mixed_rows(batch)
        if rows == 0:
            return super().discriminate(images, batch)
        discriminator = in_streams(self.borrowed("discriminator"), batch)
        a = discriminator(torch.cat([batch.real[:rows], images[rows:]]))
        b = discriminator(torch.cat([images[:rows], batch.real[rows:]]))
        return join_rows(b, a, rows)


class ConditionalMethod(Method):
    """A method with categories among its latents, drawn from ``state["category_prior"]`` by inverse CDF.

    P(C) starts uniform, and stays so where no phase observes ``category_prior``.
    """

    def __init__(self, settings: Any, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec) -> None:
        super().__init__(settings, networks, prior, spec)
        self.category_prior = CategoricalPrior(spec.categories)
        self.statistics = {"category_prior": self.category_prior}

    @classmethod
    def build_networks(cls, settings: Any, network: NetworkSettings, spec: ModelSpec) -> dict[str, nn.Module]:
        return {
            "generator": build_conditional_generator(network, spec),
            "discriminator": build_discriminator(network, spec.latent_dim, spec.shape, cls.heads(spec)),
        }

    def draws(self) -> dict[str, Draw]:
        return super().draws() | category_draws(self.spec)

    def state(self) -> dict[str, Tensor]:
        return {"category_prior": self.category_prior.probabilities}

    def latent_state(self) -> dict[str, Tensor]:
        return self.state()


class LabelledMethod(ConditionalMethod):
    """A method whose reals come with labels: fakes of a fixed P(C), and mixed batches."""

    Settings = MixingSettings
    labelled = True
    unaveraged = ("discriminator",)
    discriminator_phase: ClassVar[type[DiscriminatorPhase]]
    generator_phase: ClassVar[type[GeneratorPhase]]

    def __init__(
        self, settings: MixingSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        start = chosen_prior(settings.category_probabilities, spec.categories)
        self.category_prior.probabilities.copy_(start)
        players = self.networks["generator"], self.networks["discriminator"]
        self.phases = [
            self.discriminator_phase(settings, *players, spec.categories),
            self.generator_phase(settings, *players, spec.categories),
        ]

    @classmethod
    def build_networks(
        cls, settings: MixingSettings, network: NetworkSettings, spec: ModelSpec
    ) -> dict[str, nn.Module]:
        chosen_prior(settings.category_probabilities, spec.categories)
        return super().build_networks(settings, network, spec)

    def schedule(self, step: int, stream_batch: int) -> dict[str, float]:
        return {"mixed_samples": mixed_samples(self.settings.mixing_ratio(step), stream_batch)}
