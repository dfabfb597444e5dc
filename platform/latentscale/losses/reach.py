"""Gradients of an input alone, for losses that must reach some networks and not others."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def with_input_gradient(judge: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One forward pass, and the gradient of its value with respect to its input, as a number.

    No parameter's gradient is computed or touched. While `torch.compile` traces, the gradient is taken by
    `torch.func.vjp`; eagerly by ``autograd.grad``, which records every operation once where vjp records it twice.

    Args:
        judge: ``x`` to a 0-dim value and any other tensor.
        x: requires a gradient.

    Returns:
        Value and other tensor with their graphs, and ∂value/∂x without one, of ``x``'s shape.
    """
    if torch.compiler.is_compiling():
        value, pull_back, other = torch.func.vjp(judge, x, has_aux=True)  # type: ignore[misc]  # has_aux adds the third
        (gradient,) = pull_back(torch.ones_like(value))
    else:
        value, other = judge(x)
        (gradient,) = torch.autograd.grad(value, x, retain_graph=True)
    return value, other, gradient.detach()


def through_frozen(network: nn.Module, x: Tensor) -> Any:
    """What ``network(x)`` returns, with a gradient to ``x`` and none to the network's parameters."""
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    return torch.func.functional_call(network, parameters, (x,))
