"""The sizes that a model's networks are built for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelSpec:
    """Sizes that follow from the dataset and the configuration.

    Attributes:
        shape: of one sample, (C, H, W) for images or (D,) for points.
        latent_dim: d_z.
        categories: d_c of each label that the method uses; empty if it uses none.
    """

    shape: tuple[int, ...]
    latent_dim: int
    categories: tuple[int, ...] = ()

    @property
    def category_dim(self) -> int:
        """Σ d_c, the width of all labels' one-hots, concatenated."""
        return sum(self.categories)
