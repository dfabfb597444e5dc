"""The optimizer of a phase."""

from typing import Any

import torch

from latentscale.config import OptimizerSettings
from latentscale.methods.phase import Phase


def rate_factor(settings: OptimizerSettings, images: int, epoch_images: int) -> float:
    """What all learning rates are multiplied by after so many images: ``epoch_decay`` for every finished epoch."""
    return settings.epoch_decay ** (images // epoch_images)


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
