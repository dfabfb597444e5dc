"""Gaussian clusters: the distribution that the points are drawn from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentscale.latents.draws import Purpose, uniforms

COUNTS = {"train": 2**17, "test": 2**12}
"""Default number of points in each split."""


@dataclass(frozen=True)
class ClusterLaw:
    """A Gaussian mixture in any dimension; by default the four planar clusters of Cho 2025, fig. 1 and fig. 38-42.

    Attributes:
        means: mean of each cluster.
        deviation: standard deviation of every coordinate in every cluster.
        probabilities: probability of each cluster; they sum to 1.
    """

    means: tuple[tuple[float, ...], ...] = ((-1.0, 1.0), (0.0, -2.0), (1.0, -1.0), (2.0, 1.0))
    deviation: float = 0.3
    probabilities: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4)

    @property
    def names(self) -> list[str]:
        """The clusters' names: their means."""
        return [f"({', '.join(map(_number, mean))})" for mean in self.means]

    def draw(self, seed: int, split: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Draw points ``[count, D]`` and their clusters ``[count]``: a pure function of distribution and arguments.

        Args:
            seed: seed of the draws.
            split: number of the split; the points of different splits are independent.
            count: number of points.
        """
        import torch  # the import takes a second, and processes that only read points do not need it

        means = np.array(self.means)
        draws = uniforms(seed, Purpose.SYNTHETIC_DATA, 0, split, (1 + means.shape[1]) * count).reshape(-1, count)
        clusters = np.searchsorted(np.cumsum(self.probabilities)[:-1], draws[0], side="right").astype(np.int64)
        noise = torch.special.ndtri(torch.from_numpy(draws[1:])).numpy().T
        return (means[clusters] + self.deviation * noise).astype(np.float32), clusters


def bundled_points(law: ClusterLaw, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The points ``[N, D]`` of ``data.name=clusters`` and their clusters ``[N]``; every run draws them with seed 0."""
    return law.draw(0, list(COUNTS).index(split), COUNTS[split])


def _number(value: float) -> str:
    """The shortest decimal that reads back as this number."""
    return repr(value).removesuffix(".0")
