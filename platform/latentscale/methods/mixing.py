"""Mixed batches (T §3.1.1, 4.1.2): A = (first m·b reals, the other fakes), B = (first m·b fakes, the other reals).

Batch-wise layers see A and B; the losses still pair reals with reals.
"""

import math
from dataclasses import dataclass

import torch

from latentscale.methods.adversary import FixedPriorSettings
from latentscale.methods.phase import Batch
from latentscale.networks.discriminator_output import DiscriminatorOutput
from latentscale.settings import setting


@dataclass
class MixingSettings(FixedPriorSettings):
    mix_rate: float = setting(0.0, "mixed batches: growth of the mixing ratio m an epoch", minimum=0)
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


def join_rows(first: DiscriminatorOutput, last: DiscriminatorOutput, rows: int) -> DiscriminatorOutput:
    """The first rows of one pass and the others of another."""
    parts = (
        None if one is None or other is None else torch.cat([one[:rows], other[rows:]])
        for one, other in zip(first, last, strict=True)
    )
    return DiscriminatorOutput(*parts)  # type: ignore[arg-type]
