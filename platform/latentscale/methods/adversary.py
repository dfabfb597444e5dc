"""What the phases of every method with a discriminator say of their fakes, of D's passes and of its values."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from latentscale.latents.categories import draw_categories
from latentscale.latents.draws import Purpose
from latentscale.latents.scale import at_least_float32
from latentscale.losses.penalties import discriminate_with_gradient
from latentscale.methods.base import Draw, MethodSettings
from latentscale.methods.phase import Batch
from latentscale.networks.discriminator_output import DiscriminatorOutput
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting

Seen = tuple[DiscriminatorOutput, Tensor | None]
"""D's outputs, and ``[b]`` squared input gradients where they are penalised."""


@dataclass
class FixedPriorSettings(MethodSettings):
    category_probabilities: list[float] = setting(
        factory=list,
        help="the fixed P(C), all labels side by side, e.g. [0.1,0.2,0.3,0.4]; empty is uniform",
        minimum=0,
        maximum=1,
    )


class Side(NamedTuple):
    """The reals or the fakes of a phase: what D saw, what it said, and their categories (None without)."""

    images: Tensor
    output: DiscriminatorOutput
    category: Tensor | None


class Adversary:
    """What both phases say of their fakes and of D's values.

    Attributes:
        sizes: d_c of each label, empty without categories.
    """

    sizes: tuple[int, ...] = ()

    def fakes(self, generator: nn.Module, latent: Tensor, category: Tensor | None, batch: Batch) -> Tensor:
        """G(z∘s) where the method has a scale, else G(z), or G(z, c): ``[b, *shape]``."""
        scaled = latent * batch.state["scale"] if "scale" in batch.state else latent
        images: Tensor = generator(scaled) if category is None else generator(scaled, category)
        return images

    def fake_category(self, draw: str, batch: Batch) -> Tensor | None:
        """``[b, Σ d_c]`` categories of the fakes that ``draws[draw]`` gives, None without categories."""
        if not self.sizes:
            return None
        return draw_categories(batch.draws[draw], batch.state["category_prior"], self.sizes).to(batch.real.dtype)

    def values(self, output: DiscriminatorOutput, category: Tensor | None) -> Tensor:
        """``[b, …]`` the adversarial values that the loss is taken of, in float32 or above."""
        return adversarial_value(output)


def in_streams(discriminator: nn.Module, batch: Batch) -> Callable[[Tensor], DiscriminatorOutput]:
    """D on rows of a micro-batch: layers that look at a whole batch, where it has any, look at each stream alone."""
    if not getattr(discriminator, "batchwise", False):
        return discriminator
    return partial(discriminator, streams=batch.streams)


def discriminate(
    discriminator: Callable[[Tensor], DiscriminatorOutput],
    x: Tensor,
    weight: float,
    penalise: bool,
    value: Callable[[DiscriminatorOutput], Tensor],
) -> tuple[DiscriminatorOutput, Tensor | None]:
    """One forward pass, with the squared input gradient of the adversarial value where it is to be penalised.

    Args:
        x: ``[b, …]``.
        weight: of the penalty; 0 computes none.
        value: ``[b]`` the value that training uses.

    Returns:
        D's outputs, and ``[b]`` ‖∇_x a(x)‖² or None.
    """
    if not (penalise and weight > 0):
        return discriminator(x), None
    return discriminate_with_gradient(discriminator, x, value)


def adversarial_value(output: DiscriminatorOutput) -> Tensor:
    """``[b]`` the one adversarial value a(x) of the methods without categories, in float32 or above."""
    return at_least_float32(output.adversarial.squeeze(1))


def category_draws(spec: ModelSpec) -> dict[str, Draw]:
    """What the categories of both phases' fakes are drawn from: a uniform a label and sample; nothing without labels.

    They become categories on the device, where P(C) is.
    """
    labels = len(spec.categories)
    return (
        {
            "discriminator_category": Draw(Purpose.DISCRIMINATOR_CATEGORY, labels, identity),
            "generator_category": Draw(Purpose.GENERATOR_CATEGORY, labels, identity),
        }
        if labels
        else {}
    )


def identity(uniforms: Tensor) -> Tensor:
    """The uniforms as they are."""
    return uniforms
