"""Categorical latents: draws, one-hots and the dynamic prior P(C) (Cho 2025, eq. 25-30, 42-48, alg. 5).

A category of several labels is the labels' one-hots side by side, ``[n, Σ d_c]``; so are probabilities and scores.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentscale.errors import UserError
from latentscale.latents.scale import at_least_float32
from latentscale.latents.statistic import Statistic


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


def balanced(predicted: Tensor, mean: Tensor, sizes: Sequence[int]) -> Tensor:
    """``[n, Σ d_c]`` class probabilities moved so that their mean is uniform: q − mean + 1/d_c (Cho 2025, eq. 48).

    Args:
        mean: ``[Σ d_c]``, that of ``predicted`` over the global batch.
    """
    parts = (predicted - mean.to(predicted.dtype)).split(list(sizes), dim=1)
    return torch.cat([part + 1.0 / size for part, size in zip(parts, sizes, strict=True)], dim=1)


def uniform_prior(sizes: Sequence[int]) -> Tensor:
    """``[Σ d_c]``: 1/d_c everywhere."""
    return torch.tensor([1.0 / size for size in sizes for _ in range(size)])


def chosen_prior(chosen: Sequence[float], sizes: Sequence[int]) -> Tensor:
    """``[Σ d_c]`` the P(C) of the setting ``method.category_probabilities``, uniform where that is empty.

    Raises:
        UserError: unless every label's part sums to 1, within a thousandth; it is then divided by its sum.
    """
    if not chosen:
        return uniform_prior(sizes)
    ends = list(accumulate(sizes))
    parts = [list(chosen[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
    if len(chosen) != sum(sizes) or any(abs(sum(part) - 1) > 1e-3 for part in parts):
        raise UserError(
            f"method.category_probabilities={list(chosen)} must be the {sum(sizes)} probabilities of"
            f" latent.categories={list(sizes)}, summing to 1 for each label; or empty, which is uniform"
        )
    return torch.tensor([value / sum(part) for part in parts for value in part])


def late_prior(start_step: int, steps: int) -> list[str]:
    """A warning if P(C) would not move within a run of ``steps`` steps."""
    if start_step < steps:
        return []
    return [
        f"P(C) stays uniform to the end: method.prior_start_step={start_step} is not below training.steps={steps};"
        " published runs start at a third"
    ]


def prior_summary(prior: Tensor) -> dict[str, Tensor]:
    """0-dim numbers of P(C) ``[Σ d_c]`` for reports: extremes, and how many categories have at least 1 %."""
    return {
        "category_prior/min": prior.min(),
        "category_prior/max": prior.max(),
        "surviving_categories": (prior >= 0.01).sum(),
    }


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


def gumbel(uniforms: Tensor) -> Tensor:
    """Quantile function of the standard Gumbel law: −log(−log u), for u inside (0, 1) of float64."""
    return -(-uniforms.log()).log()


class TrainablePrior(nn.Module):
    """P(C) = softmax(parameter) within each label, trained through soft samples (Elastic InfoGAN, Cho 2025, §2.1.2).

    Args:
        sizes: d_c of each label.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        # parameters named bias start at 0, which is the uniform P(C)
        self.logit_bias = nn.Parameter(torch.zeros(sum(sizes)))

    def probabilities(self) -> Tensor:
        """``[Σ d_c]``, in float32 or above."""
        return probabilities(self.logit_bias[None], self.sizes)[0]

    def forward(self, noise: Tensor, temperature: float) -> Tensor:
        """Gumbel-softmax samples softmax((log P(C) + noise)/τ) of each label, not rounded to one-hots.

        Args:
            noise: ``[n, Σ d_c]`` of the standard Gumbel law.
            temperature: τ.

        Returns:
            ``[n, Σ d_c]``, each label's part summing to 1.
        """
        # log P(C) is the parameter minus a constant, which softmax ignores
        return probabilities((self.logit_bias + noise) / temperature, self.sizes)


class CategoricalPrior(Statistic):
    """The running P(C): an exponential moving average of the mean of observed class probabilities.

    Cho 2025, eq. 46-48. ``probabilities`` is the buffer ``[Σ d_c]``. Every update keeps it on the simplex: entries are
    clamped at 0 and every label's part is divided by its sum.

    Args:
        sizes: d_c of each label.
        decay: of the moving average, per training step.
        start: ``[Σ d_c]``, uniform by default.
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
    def update(self, total: Tensor, count: Tensor | float, apply: Tensor) -> None:
        """``p ← decay · p + (1 − decay) · total / count`` where ``apply`` is 1, else ``p`` stays."""
        before = self.probabilities
        moved = torch.lerp(total.to(before.dtype) / count, before, self.decay).clamp_min(0)
        moved = torch.cat([part / part.sum() for part in moved.split(list(self.sizes))])
        before.copy_(torch.where(apply > 0, moved, before))
