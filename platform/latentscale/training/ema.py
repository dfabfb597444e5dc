"""Exponential moving average of the weights."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """Copies of networks whose weights follow the trained ones, never below float32.

    Args:
        networks: by name.
        decay: a step's weight of what was.
    """

    def __init__(self, networks: Mapping[str, nn.Module], decay: float) -> None:
        self.networks = {
            name: copy.deepcopy(network).requires_grad_(False).eval() for name, network in networks.items()
        }
        self.decay = decay
        self._averages: list[Tensor] = [p for network in self.networks.values() for p in network.parameters()]
        self._trained: list[Tensor] = [p for network in networks.values() for p in network.parameters()]

    @torch.no_grad()
    def update(self, apply: Tensor) -> None:
        """average ← average + apply · (1 − decay) · (trained − average); ``apply`` is a 0-dim 1 or 0."""
        weight = apply.to(self._averages[0].dtype) * (1 - self.decay)
        if weight.device.type == "cpu":
            # one pass instead of three; reading the weight waits for nothing here
            torch._foreach_lerp_(self._averages, self._trained, weight.item())
            return
        difference = torch._foreach_sub(self._trained, self._averages)
        torch._foreach_mul_(difference, weight)
        torch._foreach_add_(self._averages, difference)
