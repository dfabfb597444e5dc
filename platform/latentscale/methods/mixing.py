"""Mixed batches: D sees A = (first m·b reals, last (1 − m)·b fakes) and B = (first m·b fakes, last (1 − m)·b reals).

Layers that compare the samples of a batch see A or B; the losses still take reals and fakes (Cho 2025, §3.1.1, §4.1.2).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentscale.errors import UserError
from latentscale.losses.adversarial import ADVERSARIAL
from latentscale.methods.categorical import FixedPriorSettings
from latentscale.methods.passes import Pass, Value, compared_reals, discriminate, halves, in_streams
from latentscale.methods.phase import Batch
from latentscale.networks.discriminator_output import DiscriminatorOutput
from latentscale.settings import setting

CategoryValue = Callable[[Tensor], Value]
"""``[b, Σ d_c]`` categories of samples, to the function from D's outputs to the inputs of the adversarial loss."""


@dataclass
class MixingSettings(FixedPriorSettings):
    mix_rate: float = setting(0.0, "mixed batches: growth of the mixing ratio m per epoch", minimum=0)
    mix_most: float = setting(0.5, "the largest mixing ratio", minimum=0, maximum=0.5)
    mix_epoch_steps: int = setting(1000, "an epoch of the mixing schedule", unit="steps", minimum=1)

    def mixing_ratio(self, step: int) -> float:
        """m(t) = min(rate · epoch, most), epochs counted from 0."""
        return min(self.mix_rate * (step // self.mix_epoch_steps), self.mix_most)


def mixed_samples(ratio: float, stream_batch: int) -> int:
    """⌊m·b⌋, the first samples of every stream that are mixed."""
    # rounding must not take a sample away: 58 epochs of 0.005 times 100 samples are 29, not 28.999…
    return math.floor(ratio * stream_batch + 1e-9)


def mixed_rows(batch: Batch) -> int:
    """Rows of the first ⌊m·b⌋ samples of every stream."""
    return int(batch.schedule.get("mixed_samples", 0)) * batch.streams


def check_pairs(settings: MixingSettings, stream_batch: int) -> None:
    """Refuse a mixing schedule that leaves a paired adversarial loss samples without a partner.

    Such a loss pairs the reals of A with the fakes of A, and those of B with those of B. A holds ⌊m·b⌋ reals and
    b − ⌊m·b⌋ fakes: as many of both only where ⌊m·b⌋ = b/2. Where ⌊m·b⌋ = 0 nothing is mixed, and all reals are paired
    with all fakes.

    Raises:
        UserError: naming the keys.
    """
    mixes = settings.mix_rate > 0 and mixed_samples(settings.mix_most, stream_batch) > 0
    if not (ADVERSARIAL[settings.adversarial].paired and mixes):
        return
    # m grows, and no epoch mixes more than half a stream: enough if the first epoch that mixes any mixes half
    mixed = max(1, mixed_samples(settings.mixing_ratio(settings.mix_epoch_steps), stream_batch))
    if 2 * mixed != stream_batch:
        raise UserError(
            f"method.adversarial={settings.adversarial} pairs reals with fakes, and method.mix_rate="
            f"{settings.mix_rate:g} with method.mix_most={settings.mix_most:g} mixes {mixed} of the {stream_batch}"
            " samples per stream with the others: set method.mix_rate=0, or 0.5 with method.mix_most=0.5 and an even"
            " number of samples per stream"
        )


def discriminator_passes(
    settings: MixingSettings,
    discriminator: nn.Module,
    images: Tensor,
    c_r: Tensor,
    c_f: Tensor,
    batch: Batch,
    value: CategoryValue,
) -> tuple[Pass, Pass]:
    """D on the reals and on the fakes, with their penalties; through A and B where the step mixes.

    Args:
        images: the fakes.
        c_r, c_f: ``[b, Σ d_c]`` categories of reals and fakes.
        value: gives that function for samples of these categories.
    """
    real, rows = batch.real, mixed_rows(batch)
    if rows == 0:
        return (
            discriminate(discriminator, real, batch, settings.r1, value(c_r)),
            discriminate(discriminator, images, batch, settings.r2, value(c_f)),
        )
    weight = max(settings.r1, settings.r2)
    a = discriminate(discriminator, _mixed(real, images, rows), batch, weight, value(_mixed(c_r, c_f, rows)))
    b = discriminate(discriminator, _mixed(images, real, rows), batch, weight, value(_mixed(c_f, c_r, rows)))
    real_pass = _mixed_passes(a, b, rows, penalised=settings.r1 > 0)
    fake_pass = _mixed_passes(b, a, rows, penalised=settings.r2 > 0)
    return real_pass, _in_order_of_pairs(fake_pass, settings)


def generator_passes(
    settings: MixingSettings,
    discriminator: nn.Module,
    images: Tensor,
    batch: Batch,
    real_value: Value,
    fake_value: Value,
) -> tuple[Pass | None, Pass]:
    """The frozen D on the reals, if the loss compares fakes with them, and on the fakes; through A and B likewise.

    D's output for a real in A or B depends on the fakes in the same batch, so its gradient reaches G too.

    Args:
        images: the fakes.
        real_value, fake_value: of the reals and of the fakes, in their own order.
    """
    real, rows = batch.real, mixed_rows(batch)
    if rows == 0:
        compared = compared_reals(settings, discriminator, batch, real_value)
        return compared, discriminate(discriminator, images, batch, value=fake_value)
    see = in_streams(discriminator, batch)
    a, b = see(_mixed(real, images, rows)), see(_mixed(images, real, rows))
    fake_output = _mixed_outputs(b, a, rows)
    fake_pass = Pass(fake_output, fake_value(fake_output))
    if not ADVERSARIAL[settings.adversarial].paired:
        return None, fake_pass
    real_output = _mixed_outputs(a, b, rows)
    return Pass(real_output, real_value(real_output)), _in_order_of_pairs(fake_pass, settings)


def _in_order_of_pairs(fake: Pass, settings: MixingSettings) -> Pass:
    """For a paired loss, the fakes' values in the order of the reals that they are compared with.

    The reals in A are the first half of all reals and the fakes in A are the last half of all fakes; in B it is the
    other way round. `check_pairs` guarantees halves.
    """
    if not ADVERSARIAL[settings.adversarial].paired:
        return fake
    of_b, of_a = halves(fake.value)
    return fake._replace(value=torch.cat([of_a, of_b]))


def _mixed_passes(first: Pass, last: Pass, rows: int, penalised: bool) -> Pass:
    squared = first.squared_gradient, last.squared_gradient
    gradient = None if squared[0] is None or squared[1] is None else _mixed(squared[0], squared[1], rows)
    output, value = _mixed_outputs(first.output, last.output, rows), _mixed(first.value, last.value, rows)
    return Pass(output, value, gradient if penalised else None)


def _mixed_outputs(first: DiscriminatorOutput, last: DiscriminatorOutput, rows: int) -> DiscriminatorOutput:
    heads = (
        None if one is None or other is None else _mixed(one, other, rows)
        for one, other in zip(first, last, strict=True)
    )
    return DiscriminatorOutput._make(heads)


def _mixed(first: Tensor, last: Tensor, rows: int) -> Tensor:
    """The first rows of one tensor and the last rows of another."""
    return torch.cat([first[:rows], last[rows:]])
