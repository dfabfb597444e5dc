"""Gradient penalties on the discriminator's input: R1 on reals, R2 on fakes (Cho 2025, eq. 51)."""

from collections.abc import Callable

import torch
from torch import Tensor

from latentscale.latents.scale import at_least_float32
from latentscale.networks.discriminator_output import DiscriminatorOutput


def discriminate_with_gradient(
    discriminator: Callable[[Tensor], DiscriminatorOutput],
    x: Tensor,
    value: Callable[[DiscriminatorOutput], Tensor],
) -> tuple[DiscriminatorOutput, Tensor]:
    """One forward pass, and ``‖∇_x value(D(x))‖²`` of each sample with a graph to D's parameters.

    The mean over the batch of the second result is R1 (or R2): the sum over all input elements, without a
    factor ½. The gradient's graph runs in the forward pass's precision (bf16 under autocast); the values are
    cast to float32 before they are differentiated, and squares and sums are taken in float32 or above.
    Where layers look at a whole batch, the gradient at a sample is that of the sum over the batch. While
    `torch.compile` traces, `torch.func.vjp` takes the gradient, because ``autograd.grad(create_graph=True)`` cannot be
    traced. Eagerly the latter takes it: it records every operation once where vjp records it twice, which saves a
    millisecond per step for networks of any size.

    Args:
        discriminator: maps ``[b, …]`` to a `DiscriminatorOutput`.
        x: ``[b, …]``; no gradient reaches it.
        value: the adversarial value ``[b]`` that training uses, out of the `DiscriminatorOutput`.

    Returns:
        What the discriminator returned, with its graph, and ``[b]`` squared gradient norms.
    """
    take = _by_vjp if torch.compiler.is_compiling() else _by_autograd
    seen, gradient = take(discriminator, x.detach(), value)
    return seen, at_least_float32(gradient).square().flatten(1).sum(1)


def _by_autograd(
    discriminator: Callable[[Tensor], DiscriminatorOutput], x: Tensor, value: Callable[[DiscriminatorOutput], Tensor]
) -> tuple[DiscriminatorOutput, Tensor]:
    x = x.requires_grad_(True)
    seen = discriminator(x)
    values = at_least_float32(value(seen))
    (gradient,) = torch.autograd.grad(values, x, torch.ones_like(values), create_graph=True)
    return seen, gradient


def _by_vjp(
    discriminator: Callable[[Tensor], DiscriminatorOutput], x: Tensor, value: Callable[[DiscriminatorOutput], Tensor]
) -> tuple[DiscriminatorOutput, Tensor]:
    def differentiated(x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        seen = discriminator(x)
        # vjp takes only tensors as auxiliary results: an empty one stands for a head that does not exist.
        parts = tuple(x.new_empty(0) if part is None else part for part in seen)
        return at_least_float32(value(seen)), parts

    values, pull_back, parts = torch.func.vjp(  # type: ignore[misc]  # has_aux adds the third
        differentiated, x, has_aux=True
    )
    (gradient,) = pull_back(torch.ones_like(values))
    adversarial, *heads = parts
    seen = DiscriminatorOutput(adversarial, *(part if part.numel() else None for part in heads))  # type: ignore[arg-type]
    return seen, gradient
