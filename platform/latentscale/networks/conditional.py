"""Generators that take categories beside the latent."""

from dataclasses import replace

from torch import Tensor, cat, nn

from latentscale.latents.categories import normalised
from latentscale.networks.build import (
    NetworkSettings,
    build_codebook_generator,
    build_discriminator,
    build_generator,
)
from latentscale.networks.outputs import Heads
from latentscale.networks.spec import ModelSpec


def build_conditional_generator(settings: NetworkSettings, spec: ModelSpec) -> nn.Module:
    """A generator of ``[b, d_z]`` latents and ``[b, Σ d_c]`` categories.

    Raises:
        UserError: naming the ``network.*`` key, if the family cannot make that shape.
    """
    if settings.family == "codebook" and settings.pages:
        return build_codebook_generator(settings, spec.latent_dim, spec.categories, spec.shape)
    generator = build_generator(settings, spec.latent_dim, spec.shape, spec.category_dim)
    return CategoryInput(generator, spec.categories)


def build_classifier(settings: NetworkSettings, spec: ModelSpec) -> nn.Module:
    """Q ``[b, *shape]`` -> `Discrimination` with ``classes`` ``[b, Σ d_c]`` alone: the discriminator's architecture.

    Without batch-wise layers: a sample's category is its own.

    Raises:
        UserError: naming the ``network.*`` key, if the family cannot take that shape.
    """
    settings = replace(settings, minibatch_deviation=False)
    return build_discriminator(settings, spec.latent_dim, spec.shape, Heads(adversarial=0, classes=spec.category_dim))


class CategoryInput(nn.Module):
    """Any generator of plain latents, fed the latent and the normalised categories side by side (T eq. 25-30).

    Args:
        generator: takes ``[b, d_z + Σ d_c]``.
        sizes: d_c of each label.
    """

    def __init__(self, generator: nn.Module, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.generator = generator
        self.sizes = sizes

    def forward(self, latent: Tensor, category: Tensor) -> Tensor:
        """``[b, d_z]`` and one-hots (or probabilities) ``[b, Σ d_c]`` to ``[b, *shape]``."""
        images: Tensor = self.generator(cat([latent, normalised(category, self.sizes).to(latent.dtype)], dim=1))
        return images
