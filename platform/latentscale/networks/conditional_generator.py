"""A generator that takes categories, concatenated with the latent."""

from torch import Tensor, cat, nn

from latentscale.latents.categories import normalised


class ConditionalGenerator(nn.Module):
    """G(z, c) of Cho 2025, eq. 25-30: a generator of plain latents that is fed z and the normalised categories.

    Args:
        generator: takes ``[b, d_z + Σ d_c]``.
        sizes: d_c of each label.
    """

    def __init__(self, generator: nn.Module, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.generator = generator
        self.sizes = sizes

    def forward(self, latent: Tensor, category: Tensor) -> Tensor:
        """Latents ``[b, d_z]`` and one-hots (or probabilities) ``[b, Σ d_c]`` to ``[b, *shape]``."""
        images: Tensor = self.generator(cat([latent, normalised(category, self.sizes).to(latent.dtype)], dim=1))
        return images
