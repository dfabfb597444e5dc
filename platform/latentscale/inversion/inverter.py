"""Maps images to latents and back with a trained model."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentscale.errors import UserError
from latentscale.inversion.editing import attribute_directions, attribute_score, edit_latent
from latentscale.inversion.image_input import ImageLike, as_model_input
from latentscale.inversion.ood_scores import latent_negative_log_likelihood
from latentscale.inversion.tensor_input import as_categories, as_integer, as_latents, as_tensor
from latentscale.inversion.trained_model import TrainedModel, model_folder
from latentscale.latents.categories import one_hot
from latentscale.latents.draws import Purpose
from latentscale.machine_memory import bytes_in_words, machine_memory
from latentscale.wording import shown

ArrayLike = Tensor | np.ndarray | Sequence[Any]
"""A tensor, an array or a nested list of numbers."""


class Generated(NamedTuple):
    """Generated samples.

    Attributes:
        images: ``[n, *shape]``, clipped to [-1, 1].
        latents: ``[n, d_z]`` unscaled, the latents that `Inverter.encode` predicts: for InvGAN the mapping network's w.
        categories: ``[n, d_l]`` int64, None if the generator takes no categories.
    """

    images: Tensor
    latents: Tensor
    categories: Tensor | None = None


class Inverter:
    """A trained model with its two maps, image → latent and latent → image.

    Latents are *unscaled* (z, distributed as the prior) unless a method's docstring says otherwise; the generator takes
    z∘s. Latents and categories may be tensors, arrays or nested lists of numbers. All results are on the CPU, without
    gradients: use ``model`` if you need gradients.

    Attributes:
        model: the networks and statistics.
        batch_images: number of images in one forward pass; lower it if memory runs out.
    """

    def __init__(self, model: TrainedModel, batch_images: int = 64) -> None:
        self.model = model
        self.batch_images = min(as_integer(batch_images, "batch_images", 1), sys.maxsize)

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str | None = None, batch_images: int = 64) -> "Inverter":
        """Load a run's model.

        Args:
            path: a run's folder (its ``model/`` is used) or a model's folder.
            device: ``cpu``, ``cuda``, ``cuda:1``, …; by default a GPU if there is one.
            batch_images: number of images in one forward pass.

        Raises:
            UserError: if there is no complete, readable model at the path, or the device is not available.
        """
        return cls(TrainedModel.load(model_folder(path), _find_device(device)), batch_images)

    @property
    def scale(self) -> Tensor:
        """s ``[d_z]``; ones for methods without dynamic scale."""
        return self.model.scale.cpu()

    @property
    def variance(self) -> Tensor | None:
        """v ``[d_z]``; None for methods without it."""
        return None if self.model.variance is None else self.model.variance.cpu()

    @torch.no_grad()
    def encode(self, images: ImageLike) -> Tensor:
        """E(x): images to unscaled latents ``[n, d_z]``.

        Args:
            images: float ``[n, C, H, W]`` in [-1, 1] or uint8 in [0, 255] (tensor or array), or files, or
                Pillow images; see :func:`latentscale.inversion.image_input.as_model_input`.

        Raises:
            UserError: if the model cannot take the images, has no encoder, or its encoder returns NaN.
        """
        self.model.require_encoder()
        batches = as_model_input(images, self.model.shape).split(self.batch_images)
        latents = torch.cat([self.model.encode(batch).cpu() for batch in batches])
        if not torch.isfinite(latents).all():
            raise UserError(
                f"the encoder of this model, trained for {self.model.step} steps, returned NaN or infinite values, so "
                "its training diverged: use the model of another run or an earlier checkpoint"
            )
        return latents

    @torch.no_grad()
    def decode(self, latents: ArrayLike, already_scaled: bool = False, categories: ArrayLike | None = None) -> Tensor:
        """G(z∘s): latents to images ``[n, C, H, W]``, clipped to [-1, 1], or to points ``[n, D]``, not clipped.

        Args:
            latents: ``[n, d_z]``, unscaled (z), or scaled (z∘s) with ``already_scaled``.
            already_scaled: whether ``latents`` are z∘s.
            categories: ``[n, d_l]`` int64 if the generator takes categories, else None.

        Raises:
            UserError: if a shape is wrong, a value is not finite, or categories are missing, superfluous or unknown.
        """
        given = as_latents(latents, self.model.latent_dim)
        one_hots = None if categories is None else self._one_hots(categories, len(given))
        return self._decode(given, already_scaled, one_hots)

    @torch.no_grad()
    def generate(self, count: int, seed: int, categories: ArrayLike | None = None) -> Generated:
        """Generate from latents of the prior; a smaller ``count`` with the same seed gives the first samples.

        Args:
            count: number of samples.
            seed: of the draws.
            categories: ``[count, d_l]`` int64 if the generator takes categories; None draws them from P(C).

        Raises:
            UserError: if ``count`` is below 1 or needs more memory than there is, the seed is out of range, or
                categories are superfluous or unknown.
        """
        count = as_integer(count, "count", 1)
        seed = as_integer(seed, "seed", 0, 2**64 - 1)
        # latents are drawn in float64
        least = count * (8 * self.model.latent_dim + self.model.dtype.itemsize * math.prod(self.model.shape))
        if least > machine_memory():
            raise UserError(
                f"count={count} needs at least {bytes_in_words(least)}, and this machine has "
                f"{bytes_in_words(machine_memory())}: generate in several parts, with a seed each"
            )
        drawn = self.model.draw_latents(count, seed, Purpose.EVALUATION).to(self.model.dtype)
        latents = torch.cat([self.model.map_latent(batch).cpu() for batch in drawn.split(self.batch_images)])
        if categories is None:
            one_hots = self.model.draw_categories(count, seed, Purpose.EVALUATION)
        else:
            one_hots = self._one_hots(categories, count)
        chosen = None
        if one_hots is not None:
            parts = one_hots.split(list(self.model.categories), dim=1)
            chosen = torch.stack([part.argmax(1) for part in parts], dim=1)
        return Generated(self._decode(latents, False, one_hots), latents, chosen)

    @torch.no_grad()
    def mix_styles(self, coarse: ArrayLike, fine: ArrayLike, first_fine: int) -> Tensor:
        """Style mixing: images with the coarse styles of one latent and the fine ones of another.

        For style-based generators only (Karras et al. 2019; for InvGAN Ghosh et al. 2022, §4).

        Args:
            coarse, fine: unscaled latents ``[n, d_z]``.
            first_fine: number of the generator's convolutions, from 4² upwards, that take ``coarse``; the others take
                ``fine``.

        Returns:
            Images ``[n, C, H, W]``, as from :meth:`decode`.

        Raises:
            UserError: if the generator is not style-based, has fewer convolutions, or a shape is wrong.
        """
        styles = getattr(self.model.method.networks.get("generator"), "style_count", 0)
        if not styles:
            raise UserError(
                f"the generator of this model (network.family={self.model.network_settings.family}) has no styles to "
                "mix: use a model with network.family=style"
            )
        first_fine = as_integer(first_fine, "first_fine", 0, styles)
        first = as_latents(coarse, self.model.latent_dim, "coarse latents")
        second = as_latents(fine, self.model.latent_dim, "fine latents").to(first)
        if first.shape != second.shape:
            raise UserError(
                f"coarse and fine latents have shapes {list(first.shape)} and {list(second.shape)}: give equal shapes"
            )
        mixed = torch.stack([first] * first_fine + [second] * (styles - first_fine), dim=1)
        return self._decode(mixed, False, None)

    def attribute_scores(self, latents: ArrayLike) -> Tensor:
        """Scores of unscaled latents ``[n, d_z]`` on each attribute, positive if they have it (Cho 2025, eq. 36).

        Returns:
            ``[n, columns]``: a column per binary label, and one per category of every other label.

        Raises:
            UserError: if the model is not an AEDLSGAN, or the latents' shape is wrong.
        """
        weight = attribute_directions(self.model)
        scaled = self.model.scale_latent(as_latents(latents, self.model.latent_dim)).cpu()
        return torch.stack([attribute_score(scaled, weight[:, column]) for column in range(weight.shape[1])], dim=1)

    def edit(self, latents: ArrayLike, attribute: int, target: float | ArrayLike) -> Tensor:
        """Move latents along an attribute's direction until their score is ``target`` (Cho 2025, §3.2.1).

        Args:
            latents: unscaled, ``[n, d_z]``.
            attribute: a column of :meth:`attribute_scores`.
            target: the score to reach, a number or one for each latent ``[n]``.

        Returns:
            Scaled latents ``[n, d_z]``, for :meth:`decode` with ``already_scaled=True``.

        Raises:
            UserError: if the model is not an AEDLSGAN, the attribute does not exist, or the latents' shape is wrong.
        """
        weight = attribute_directions(self.model)
        scaled = self.model.scale_latent(as_latents(latents, self.model.latent_dim)).cpu()
        column = as_integer(attribute, "attribute", 0, weight.shape[1] - 1)
        scores = as_tensor(target, "target scores", f"a number, or [{len(scaled)}]").cpu().double()
        if (scores.ndim and scores.shape != (len(scaled),)) or not torch.isfinite(scores).all():
            raise UserError(
                f"the target must be a finite number, or {len(scaled)} of them: got shape {list(scores.shape)} with "
                f"{int(torch.isfinite(scores).sum())} finite numbers"
            )
        return edit_latent(scaled, weight[:, column], scores)

    def reconstruct(self, images: ImageLike) -> Tensor:
        """G(E(x)∘s): reconstructions, as from :meth:`decode`, of images, as for :meth:`encode`."""
        return self.decode(self.encode(images))

    def ood_score(self, images: ImageLike) -> Tensor:
        """Out-of-distribution scores ``[n]`` in nats, float64 (Cho 2025, eq. 37).

        A higher score is less like the training data. Only differences are meaningful: compare with the
        scores of in-distribution images.

        Raises:
            UserError: as :meth:`encode`, or if the method has no latent variance.
        """
        return self.ood_score_of_latents(self.encode(images))

    def ood_score_of_latents(self, latents: ArrayLike) -> Tensor:
        """:meth:`ood_score` of images that are already encoded to unscaled latents ``[n, d_z]``."""
        if self.model.variance is None:
            raise UserError(
                f"a model trained by {self.model.method.name} has no latent variance and so no OOD score: use another "
                "method's model"
            )
        given = as_latents(latents, self.model.latent_dim).cpu()
        return latent_negative_log_likelihood(given, self.model.variance.cpu(), self.model.prior)

    def _one_hots(self, categories: ArrayLike, count: int) -> Tensor:
        sizes = self.model.categories
        if not sizes:
            raise UserError(f"a model trained by {self.model.method.name} takes no categories: leave them out")
        return one_hot(as_categories(categories, count, sizes), sizes)

    def _decode(self, latents: Tensor, already_scaled: bool, categories: Tensor | None) -> Tensor:
        images = []
        for start in range(0, len(latents), self.batch_images):
            rows = slice(start, start + self.batch_images)
            category = None if categories is None else categories[rows]
            images.append(self.model.decode(latents[rows], category, already_scaled).cpu())
        joined = torch.cat(images)
        return joined.clamp(-1.0, 1.0) if self.model.makes_images else joined


def _find_device(device: torch.device | str | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        # torch's messages have several lines
        reason = str(error).splitlines()[0] if str(error) else "not available"
        raise UserError(
            f"device {shown(device)} cannot be used ({reason}): give cpu, or a device of this machine"
        ) from error
    return found
