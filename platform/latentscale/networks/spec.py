"""What the networks of a model are built for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelSpec:
    """Sizes that data and configuration settle.

    Attributes:
        shape: of one sample, (C, H, W) for images or (D,) for points.
        latent_dim: d_z.
        categories: d_c of each label that the method knows, empty where it knows none.
    """

    shape: tuple[int, ...]
    latent_dim: int
    categories: tuple[int, ...] = ()

    @property
    def category_dim(self) -> int:
        """Σ d_c, the width of all labels' one-hots side by side."""
        return sum(self.categories)
