"""The optimizer of a phase, and the schedule of the learning rates."""

from collections.abc import Sequence
from typing import Any

import torch

from latentscale.config import OptimizerSettings
from latentscale.distributed.phases import DistributedPhase
from latentscale.methods.phase import Phase


class LearningRates:
    """The learning rates of all phases, multiplied by ``optimizer.epoch_decay`` for every finished epoch.

    Args:
        batch: images of a step, over all processes.
        epoch_images: images of an epoch.

    Attributes:
        factor: the current multiplier of every learning rate.
    """

    def __init__(
        self, settings: OptimizerSettings, phases: Sequence[DistributedPhase], batch: int, epoch_images: int
    ) -> None:
        self._decay, self._phases, self._batch, self._epoch_images = settings.epoch_decay, phases, batch, epoch_images
        self.factor = 1.0

    def set_for(self, step: int) -> None:
        """Set the learning rates of every phase to those of a step, counted from 0."""
        factor = self._decay ** (step * self._batch // self._epoch_images)
        if factor != self.factor:
            self.factor = factor
            for phase in self._phases:
                phase.scale_learning_rates(factor)


def make_optimizer(settings: OptimizerSettings, phase: Phase) -> torch.optim.Optimizer:
    """Adam or AdamW over the phase's own parameters; fused, so that a step can be skipped on the device."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
    groups: list[dict[str, Any]] = []
    for parameters, learning_rate, weight_decay in phase.parameter_groups():
        group: dict[str, Any] = {"params": parameters}
        group |= {} if learning_rate is None else {"lr": learning_rate}
        group |= {} if weight_decay is None else {"weight_decay": weight_decay}
        groups.append(group)
    return kind(
        groups,
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )
