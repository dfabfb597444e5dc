"""The fixed linear classifier that says which attributes a latent has (Cho 2025, §3.2.1, eq. 36)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentscale.latents.categories import most_likely
from latentscale.latents.statistic import Statistic


class FixedClassifier(Statistic):
    """c_f = onehot(sign or argmax of (z∘s)w): w ~ N(0, 1), drawn with the weights and never changed.

    It is one of the method's statistics, so that it is saved with the model, but nothing updates or trains it. A binary
    attribute has one column of w, and its second category where the score is positive; other labels have one column per
    category.

    Args:
        dim: d_z.
        sizes: d_c of each label.

    Attributes:
        weight: w ``[d_z, columns]``, zero until `latentscale.networks.initialisation.initialize` or a state dict
            fills it; float32 or float64, never less.
    """

    def __init__(self, dim: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.columns = column_counts(sizes)
        self.weight = nn.Parameter(torch.zeros(dim, sum(self.columns)), requires_grad=False)

    @property
    def size(self) -> int:
        """0: it observes nothing."""
        return 0

    @staticmethod
    def contribution(observed: Tensor) -> Tensor:
        """``[0]``: observations are ignored."""
        return observed.new_empty(0)

    def update(self, total: Tensor, count: Tensor | float, apply: Tensor) -> None:
        """Nothing changes w."""


def column_counts(sizes: Sequence[int]) -> list[int]:
    """Columns of w for each label: one for a binary attribute, else one per category."""
    return [1 if size == 2 else size for size in sizes]


def attribute_scores(scaled: Tensor, weight: Tensor) -> Tensor:
    """``[n, d_z]`` scaled latents z∘s and w ``[d_z, columns]`` to ``[n, columns]`` (z∘s)w.

    A product and a sum, not a matmul: autocast would take that in bf16 and turn the signs of small scores.
    """
    return (scaled.unsqueeze(2) * weight).sum(1)


def attribute_categories(scaled: Tensor, weight: Tensor, sizes: Sequence[int]) -> Tensor:
    """``[n, Σ d_c]`` one-hots of what scaled latents ``[n, d_z]`` have (Cho 2025, eq. 36 with b = 0)."""
    parts = zip(attribute_scores(scaled, weight).split(column_counts(sizes), dim=1), sizes, strict=True)
    return torch.cat(
        [
            F.one_hot((scores[:, 0] > 0).long(), 2).to(scores.dtype) if size == 2 else most_likely(scores, [size])
            for scores, size in parts
        ],
        dim=1,
    )
