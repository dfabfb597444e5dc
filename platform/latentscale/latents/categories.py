"""Categorical latents: draws, one-hots and the dynamic prior P(C) (T eq. 25-30, 42-48, alg. 5).

A category of several labels is the labels' one-hots side by side, ``[n, Σ d_c]``; so are probabilities and scores.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentscale.latents.scale import at_least_float32


def one_hot(labels: Tensor, sizes: Sequence[int]) -> Tensor:
    """``[n, d_l]`` int64 categories to ``[n, Σ d_c]`` float32 one-hots."""
    return torch.cat([F.one_hot(labels[:, i], size) for i, size in enumerate(sizes)], dim=1).float()


def draw_categories(uniforms: Tensor, prior: Tensor, sizes: Sequence[int]) -> Tensor:
    """Categories of P(C) by inverse CDF, as one-hots.

    Args:
        uniforms: ``[n, d_l]`` in (0, 1).
        prior: ``[Σ d_c]``, each label's part sums to 1.
        sizes: d_c of each label.

    Returns:
        ``[n, Σ d_c]`` in the prior's precision.
    """
    drawn = []
    for i, part in enumerate(prior.split(list(sizes))):
        # the last positive category takes what rounding leaves above the sum
        last = part.numel() - 1 - (part.flip(0) > 0).to(torch.uint8).argmax()
        ends = part.cumsum(0)
        chosen = torch.searchsorted(ends, uniforms[:, i].to(ends.dtype).contiguous(), right=True)
        drawn.append(F.one_hot(torch.minimum(chosen, last), part.numel()).to(prior.dtype))
    return torch.cat(drawn, dim=1)


def most_likely(scores: Tensor, sizes: Sequence[int]) -> Tensor:
    """``[n, Σ d_c]`` scores to the one-hots of each label's largest."""
    return torch.cat(
        [F.one_hot(part.argmax(1), part.shape[1]).to(scores.dtype) for part in scores.split(list(sizes), dim=1)], dim=1
    )


def probabilities(logits: Tensor, sizes: Sequence[int]) -> Tensor:
    """Softmax within each label: ``[n, Σ d_c]``, in float32 or above."""
    return torch.cat([part.softmax(1) for part in at_least_float32(logits).split(list(sizes), dim=1)], dim=1)


def uniform_prior(sizes: Sequence[int]) -> Tensor:
    """``[Σ d_c]``: 1/d_c everywhere."""
    return torch.cat([torch.full((size,), 1.0 / size) for size in sizes])


def normalised(category: Tensor, sizes: Sequence[int]) -> Tensor:
    """One-hots with mean 0 and variance 1 under a uniform prior: (d_c·c − 1)/√(d_c − 1), c itself for d_c = 1."""
    parts = category.split(list(sizes), dim=1)
    return torch.cat(
        [
            part if size == 1 else (size * part - 1) / math.sqrt(size - 1)
            for part, size in zip(parts, sizes, strict=True)
        ],
        dim=1,
    )


class CategoricalPrior(nn.Module):
    """The running P(C): an exponential moving average of the mean of observed class probabilities (T eq. 46-48).

    ``probabilities`` is the buffer ``[Σ d_c]``, float32 or float64, never less. Kept on the simplex: entries are
    clamped at 0 and every label's part is divided by its sum.

    Args:
        sizes: d_c of each label.
        decay: of the moving average, a training step.
        start: ``[Σ d_c]``, uniform without it.
    """

    probabilities: Tensor

    def __init__(self, sizes: Sequence[int], decay: float = 0.999, start: Tensor | None = None) -> None:
        super().__init__()
        self.sizes, self.decay = tuple(sizes), decay
        self.register_buffer("probabilities", uniform_prior(sizes) if start is None else start.clone().float())

    @property
    def size(self) -> int:
        """Σ d_c, the width of :meth:`contribution`."""
        return self.probabilities.numel()

    @staticmethod
    @torch.no_grad()
    def contribution(observed: Tensor) -> Tensor:
        """Sum over samples of ``[n, Σ d_c]`` class probabilities, in float32 or above."""
        return at_least_float32(observed).sum(0)

    @torch.no_grad()
    def update(self, total: Tensor, count: Tensor, apply: Tensor) -> None:
        """``p ← decay · p + (1 − decay) · total / count`` where ``apply`` is 1, else ``p`` stays."""
        before = self.probabilities
        moved = torch.lerp(total.to(before.dtype) / count, before, self.decay).clamp_min(0)
        moved = torch.cat([part / part.sum() for part in moved.split(list(self.sizes))])
        before.copy_(torch.where(apply > 0, moved, before))
