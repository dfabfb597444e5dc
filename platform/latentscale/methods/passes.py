"""What the phases of adversarial methods are made of: passes of D with their penalties, and adversarial terms.

In the notation of every method's file: z a latent, c a category, x a real sample, a(·) a value of D, E(·) its predicted
latent, F(·) its features; r marks reals and f fakes.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latentscale.latents.scale import at_least_float32
from latentscale.losses.adversarial import ADVERSARIAL
from latentscale.losses.penalties import discriminate_with_gradient
from latentscale.methods.base import MethodSettings
from latentscale.methods.phase import Batch, Weighted
from latentscale.networks.discriminator_output import DiscriminatorOutput

Value = Callable[[DiscriminatorOutput], Tensor]
"""Maps D's outputs to the inputs of the adversarial loss, ``[b]`` or ``[b, d_l]``, in float32 or above."""


class Pass(NamedTuple):
    """One pass of D over some samples.

    Attributes:
        output: all heads.
        value: ``[b]`` or ``[b, d_l]`` the input of the adversarial loss, in float32 or above.
        squared_gradient: ``[b]`` ‖∇_x value‖², the value averaged over labels, where this step penalises it.
    """

    output: DiscriminatorOutput
    value: Tensor
    squared_gradient: Tensor | None = None

    @property
    def latent(self) -> Tensor:
        """``[b, d_z]`` E(x), of a D that is built with that head."""
        return predicted(self.output)

    @property
    def features(self) -> Tensor:
        """``[b, F]`` F(x)."""
        return self.output.features


def single_value(output: DiscriminatorOutput) -> Tensor:
    """``[b]`` a(x), the one adversarial value of methods whose D does not tell categories apart."""
    return at_least_float32(output.adversarial.squeeze(1))


def category_value(category: Tensor, sizes: tuple[int, ...]) -> Value:
    """The values a·c of samples of these categories, one per label: ``[b, d_l]`` (Cho 2025, eq. 25-30)."""
    return lambda output: label_values(output.adversarial, category, sizes)


def label_values(scores: Tensor, category: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """``[b, Σ d_c]`` scores and one-hots to the score of each label's category, ``[b, d_l]``, in float32 or above."""
    chosen = at_least_float32(scores) * category
    return torch.stack([part.sum(1) for part in chosen.split(list(sizes), dim=1)], dim=1)


def sample_value(value: Tensor) -> Tensor:
    """``[b]``: one value per sample, the mean over labels where there are several."""
    return value if value.dim() == 1 else value.mean(1)


def discriminate(
    discriminator: nn.Module, x: Tensor, batch: Batch, weight: float = 0.0, value: Value = single_value
) -> Pass:
    """One pass of D, with the squared input gradient where ``weight`` and the step ask for the penalty.

    Every penalty on D goes through here. The loss need not be known: it reaches D's parameters through the gradients of
    ``output``, ``value`` and ``squared_gradient``.

    Args:
        x: ``[b, …]`` rows of the micro-batch.
        batch: the micro-batch, for its number of streams and whether this step penalises.
        weight: of the penalty; 0 computes none.
        value: maps D's outputs to what the adversarial loss and the penalty are computed from.
    """
    see = in_streams(discriminator, batch)
    if not (batch.penalise and weight > 0):
        output = see(x)
        return Pass(output, value(output))
    output, squared_gradient = discriminate_with_gradient(see, x, lambda seen: sample_value(value(seen)))
    return Pass(output, value(output), squared_gradient)


def in_streams(discriminator: nn.Module, batch: Batch) -> Callable[[Tensor], DiscriminatorOutput]:
    """D on rows of a micro-batch: layers that compare the samples of a batch, if any, do so within each stream."""
    if not getattr(discriminator, "batchwise", False):
        return discriminator
    return partial(discriminator, streams=batch.streams)


def adversarial_terms(settings: MethodSettings, real: Pass, fake: Pass) -> Weighted:
    """D's adversarial loss, R1 on the reals and R2 on the fakes, with their weights."""
    interval = settings.penalty_interval_steps
    terms = {"adversarial": (1.0, ADVERSARIAL[settings.adversarial].discriminator(real.value, fake.value).mean())}
    if real.squared_gradient is not None:
        terms["r1"] = (settings.r1 * interval, real.squared_gradient.mean())
    if fake.squared_gradient is not None:
        terms["r2"] = (settings.r2 * interval, fake.squared_gradient.mean())
    return terms


def compared_reals(
    settings: MethodSettings, discriminator: nn.Module, batch: Batch, value: Value = single_value
) -> Pass | None:
    """The frozen D on the reals, where the generator's loss compares fakes with them; else None, which costs nothing.

    Without a graph: nothing that G makes is in this pass.
    """
    if not ADVERSARIAL[settings.adversarial].paired:
        return None
    with torch.no_grad():
        return discriminate(discriminator, batch.real, batch, value=value)


def generator_loss(settings: MethodSettings, real: Pass | None, fake: Pass) -> Tensor:
    """G's adversarial loss, 0-dim.

    Args:
        real: what `compared_reals` returned.
        fake: D on G's fakes.
    """
    loss = ADVERSARIAL[settings.adversarial]
    return loss.generator(None if real is None else real.value, fake.value).mean()


def scores(real: Pass, fake: Pass) -> dict[str, Tensor]:
    """D's mean values, to report."""
    return {"real_score": real.value.detach().mean(), "fake_score": fake.value.detach().mean()}


def predicted(output: DiscriminatorOutput) -> Tensor:
    """``[b, d_z]`` E(x) of a network that is built with that head."""
    assert output.latent is not None
    return output.latent


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """``[b · streams, …]`` to the first and the last b/2 samples of each stream, two views; b is even."""
    return first_half(x), second_half(x)


def first_half(x: Tensor) -> Tensor:
    """``[b · streams, …]`` to the first b/2 samples of each stream, a view; b is even."""
    return x[: len(x) // 2]


def second_half(x: Tensor) -> Tensor:
    """``[b · streams, …]`` to the last b/2 samples of each stream, a view; b is even."""
    return x[len(x) // 2 :]
