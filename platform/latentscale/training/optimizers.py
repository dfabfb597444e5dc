"""The optimizer of a phase."""

import torch
from torch import nn

from latentscale.config import OptimizerSettings


def make_optimizer(settings: OptimizerSettings, phase: nn.Module) -> torch.optim.Optimizer:
    """Adam or AdamW over the phase's own parameters; fused, so that a step can be skipped on the device."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
    return kind(
        phase.parameters(),
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )
