"""What all methods with categories share: categories of reals and fakes, values a·c per label, mixed batches.

D has an adversarial value for every category; the value of a sample is a·c for each label, the adversarial loss is
taken per label and averaged (T eq. 25-30). Mixed batches (T §3.1.1, 4.1.2): A = (first m·b reals, the other fakes), B =
(first m·b fakes, the other reals); batch-wise layers see A and B, the losses still pair reals with reals.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentscale.latents.categories import draw_categories, one_hot
from latentscale.latents.draws import Purpose
from latentscale.latents.scale import at_least_float32
from latentscale.methods import vanilla
from latentscale.methods.base import Batch, Draw, Method, MethodSettings, discriminate
from latentscale.methods.vanilla import Seen
from latentscale.networks.outputs import Discrimination
from latentscale.settings import setting


@dataclass
class ConditionalSettings(MethodSettings):
    mix_rate: float = setting(0.0, "mixed batches: growth of the mixing ratio m an epoch", minimum=0)
    mix_most: float = setting(0.5, "the largest mixing ratio", minimum=0, maximum=0.5)
    mix_epoch_steps: int = setting(1000, "an epoch of the mixing schedule", unit="steps", minimum=1)

    def mixing_ratio(self, step: int) -> float:
        """m(t) = min(rate · epoch, most), epochs counted from 0."""
        return min(self.mix_rate * (step // self.mix_epoch_steps), self.mix_most)


def label_values(scores: Tensor, category: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """``[b, Σ d_c]`` scores and one-hots to a·c of each label, ``[b, d_l]``, in float32 or above."""
    chosen = at_least_float32(scores) * category
    return torch.stack([part.sum(1) for part in chosen.split(list(sizes), dim=1)], dim=1)


def mixed_rows(batch: Batch) -> int:
    """Rows of the first ⌊m·b⌋ samples of every stream."""
    return math.floor(batch.schedule.get("mixing_ratio", 0.0) * len(batch.real) / batch.streams) * batch.streams


class Conditional(vanilla.Adversary):
    """Both phases of a method with categories: G takes them, D's values are those of the sample's own.

    Attributes:
        sizes: d_c of each label.
    """

    sizes: tuple[int, ...]

    def fakes(self, generator: nn.Module, latent: Tensor, category: Tensor | None, batch: Batch) -> Tensor:
        images: Tensor = generator(latent * batch.state["scale"] if "scale" in batch.state else latent, category)
        return images

    def fake_category(self, draw: str, batch: Batch) -> Tensor | None:
        return draw_categories(batch.draws[draw], batch.state["category_prior"], self.sizes).to(batch.real.dtype)

    def values(self, output: Discrimination, category: Tensor | None) -> Tensor:
        assert category is not None
        return label_values(output.adversarial, category, self.sizes)


class DiscriminatorPhase(Conditional, vanilla.DiscriminatorPhase):
    """D's step with categories; the reals' are their labels."""

    def __init__(
        self, settings: MethodSettings, generator: nn.Module, discriminator: nn.Module, sizes: tuple[int, ...]
    ) -> None:
        super().__init__(settings, generator, discriminator)
        self.sizes = sizes

    def real_category(self, batch: Batch) -> Tensor | None:
        assert batch.labels is not None
        return one_hot(batch.labels, self.sizes).to(batch.real.dtype)

    def penalised(self, category: Tensor | None):  # type: ignore[no-untyped-def]
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
        seen = []
        for first, last, c_first, c_last in ((batch.real, fake_images, c_r, c_f), (fake_images, batch.real, c_f, c_r)):
            category = torch.cat([c_first[:rows], c_last[rows:]])
            mixed = torch.cat([first[:rows], last[rows:]])
            seen.append(discriminate(self.discriminator, mixed, weight, batch.penalise, self.penalised(category)))
        (a, a_gradient), (b, b_gradient) = seen
        real, fake = join_rows(a, b, rows), join_rows(b, a, rows)
        if a_gradient is None or b_gradient is None:
            return (real, None), (fake, None)
        r1, r2 = torch.cat([a_gradient[:rows], b_gradient[rows:]]), torch.cat([b_gradient[:rows], a_gradient[rows:]])
        return (real, r1 if self.settings.r1 > 0 else None), (fake, r2 if self.settings.r2 > 0 else None)


class GeneratorPhase(Conditional, vanilla.GeneratorPhase):
    """G's step with categories; reals fill its mixed batches."""

    def __init__(
        self, settings: MethodSettings, generator: nn.Module, discriminator: nn.Module, sizes: tuple[int, ...]
    ) -> None:
        super().__init__(settings, generator, discriminator)
        self.sizes = sizes

    def discriminate(self, images: Tensor, batch: Batch) -> Discrimination:
        rows = mixed_rows(batch)
        if rows == 0:
            return super().discriminate(images, batch)
        discriminator = self.borrowed("discriminator")
        a = discriminator(torch.cat([batch.real[:rows], images[rows:]]))
        b = discriminator(torch.cat([images[:rows], batch.real[rows:]]))
        return join_rows(b, a, rows)


def join_rows(first: Discrimination, last: Discrimination, rows: int) -> Discrimination:
    """The first rows of one pass and the others of another."""
    parts = (
        None if one is None or other is None else torch.cat([one[:rows], other[rows:]])
        for one, other in zip(first, last, strict=True)
    )
    return Discrimination(*parts)  # type: ignore[arg-type]


class ConditionalMethod(Method):
    """A method with categories among its latents, drawn from ``state["category_prior"]`` by inverse CDF."""

    def draws(self) -> dict[str, Draw]:
        labels = len(self.spec.categories)
        return super().draws() | {
            "discriminator_category": Draw(Purpose.DISCRIMINATOR_CATEGORY, labels, identity),
            "generator_category": Draw(Purpose.GENERATOR_CATEGORY, labels, identity),
        }

    def schedule(self, step: int) -> dict[str, float]:
        return {"mixing_ratio": self.settings.mixing_ratio(step)} if hasattr(self.settings, "mixing_ratio") else {}


def identity(uniforms: Tensor) -> Tensor:
    """Categories are drawn from uniforms on the device, where P(C) is."""
    return uniforms
