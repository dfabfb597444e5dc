"""Exponential moving average of the weights."""

import copy
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """Copies of networks whose weights are moving averages of the trained ones, never below float32.

    Args:
        networks: by name.
        decay: the weight of the previous average in each step.
        current: names of networks that are copied in each step instead, as if the decay were 0.
    """

    def __init__(self, networks: Mapping[str, nn.Module], decay: float, current: Collection[str] = ()) -> None:
        self.networks = {
            name: copy.deepcopy(network).requires_grad_(False).eval() for name, network in networks.items()
        }
        self.decay = decay
        followers = [name for name in networks if name in current]
        averaged = [name for name in networks if name not in current]
        self._parts = [
            (_parameters(self.networks, names), _parameters(networks, names), 1 - part_decay)
            for names, part_decay in ((averaged, decay), (followers, 0.0))
            if names
        ]

    @torch.no_grad()
    def update(self, apply: Tensor) -> None:
        """average ← average + apply · (1 − decay) · (trained − average); ``apply`` is a 0-dim 1 or 0."""
        for averages, trained, part in self._parts:
            weight = apply.to(averages[0].dtype) * part
            if weight.device.type == "cpu":
                # one pass instead of three; reading the weight waits for nothing here
                torch._foreach_lerp_(averages, trained, weight.item())
                continue
            difference = torch._foreach_sub(trained, averages)
            torch._foreach_mul_(difference, weight)
            torch._foreach_add_(averages, difference)


def _parameters(networks: Mapping[str, nn.Module], names: Collection[str]) -> list[Tensor]:
    return [parameter for name in names for parameter in networks[name].parameters()]
