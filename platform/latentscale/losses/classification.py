"""Losses of a classifier of categories (Cho 2025, eq. 12, 42-45).

Categories and logits of several labels are concatenated, ``[b, Σ d_c]``; everything is averaged over labels and
computed in float32 or above.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from latentscale.latents.categories import probabilities
from latentscale.latents.scale import at_least_float32
from latentscale.losses.penalties import discriminate_with_gradient
from latentscale.networks.discriminator_output import DiscriminatorOutput


def cross_entropy(logits: Tensor, category: Tensor, sizes: Sequence[int]) -> Tensor:
    """``mean(−c · log softmax(logits))`` over samples and labels, 0-dim, in nats (Cho 2025, eq. 12).

    Args:
        logits: ``[b, Σ d_c]``.
        category: ``[b, Σ d_c]`` one-hots, or probabilities.
        sizes: d_c of each label.
    """
    parts = zip(at_least_float32(logits).split(list(sizes), dim=1), category.split(list(sizes), dim=1), strict=True)
    return torch.stack([-(c * part.log_softmax(1)).sum(1) for part, c in parts]).mean()


def squared_doubt(logits: Tensor, category: Tensor, sizes: Sequence[int]) -> Tensor:
    """``[b]``: (1 − softmax(logits) · c)², averaged over labels."""
    chosen = probabilities(logits, sizes) * category
    return torch.stack([(1 - part.sum(1)).square() for part in chosen.split(list(sizes), dim=1)]).mean(0)


def classify_with_gradient(
    classifier: Callable[[Tensor], DiscriminatorOutput], x: Tensor, category: Tensor, sizes: Sequence[int]
) -> tuple[DiscriminatorOutput, Tensor]:
    """One pass of Q, and ‖∇_x (1 − softmax(Q(x)) · c)²‖² of each sample, whose mean is L_cgp (Cho 2025, eq. 45).

    Labels are averaged inside the gradient. See `discriminate_with_gradient` for precision and compilation.

    Args:
        classifier: Q, with class logits.
        x: ``[b, …]``; no gradient reaches it.
        category: ``[b, Σ d_c]`` of the samples.

    Returns:
        What Q returned, and ``[b]`` squared gradient norms with a graph to Q's parameters.
    """
    return discriminate_with_gradient(classifier, x, lambda seen: squared_doubt(logits_of(seen), category, sizes))


def logits_of(output: DiscriminatorOutput) -> Tensor:
    """``[b, Σ d_c]`` the class logits of a network that is built with them."""
    assert output.classes is not None
    return output.classes
