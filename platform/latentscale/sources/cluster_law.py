"""Gaussian clusters as a law to draw from: means, one deviation, and the probability of each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentscale.latents.draws import Purpose, uniforms

COUNTS = {"train": 2**17, "test": 2**12}
"""Points of each split, unless others are wanted."""


@dataclass(frozen=True)
class ClusterLaw:
    """Clusters of a space of any dimension; by default those of T figs. 1 and 38-42, in the plane.

    Attributes:
        means: of each cluster.
        deviation: of every coordinate, in every cluster.
        probabilities: of each cluster; they add up to 1.
    """

    means: tuple[tuple[float, ...], ...] = ((-1.0, 1.0), (0.0, -2.0), (1.0, -1.0), (2.0, 1.0))
    deviation: float = 0.3
    probabilities: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4)

    @property
    def names(self) -> list[str]:
        """Of the clusters: their means."""
        return [f"({', '.join(map(_number, mean))})" for mean in self.means]

    def draw(self, seed: int, split: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Points ``[count, D]`` and their clusters ``[count]``: a function of the law and these numbers.

        Args:
            split: points of other splits are independent of these.
        """
        import torch  # it takes a second, and processes that only read points need none

        means = np.array(self.means)
        draws = uniforms(seed, Purpose.SYNTHETIC_DATA, 0, split, (1 + means.shape[1]) * count).reshape(-1, count)
        clusters = np.searchsorted(np.cumsum(self.probabilities)[:-1], draws[0], side="right").astype(np.int64)
        noise = torch.special.ndtri(torch.from_numpy(draws[1:])).numpy().T
        return (means[clusters] + self.deviation * noise).astype(np.float32), clusters


def bundled_points(law: ClusterLaw, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The points ``[N, D]`` of ``data.name=clusters`` and their clusters ``[N]``; drawn by seed 0 for every run."""
    return law.draw(0, list(COUNTS).index(split), COUNTS[split])


def _number(value: float) -> str:
    """As short as no other number is written."""
    return repr(value).removesuffix(".0")
