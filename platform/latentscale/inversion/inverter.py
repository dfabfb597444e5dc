"""What the training was for: images to latents and back, with a trained model."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from latentscale.errors import UserError
from latentscale.inversion.editing import attribute_directions, edit, score
from latentscale.inversion.images import ImageLike, as_model_input
from latentscale.inversion.model import TrainedModel, model_folder
from latentscale.inversion.scores import latent_negative_log_likelihood
from latentscale.latents.categories import one_hot
from latentscale.latents.draws import Purpose


class Generated(NamedTuple):
    """New samples: ``images [n, *shape]`` clipped to [-1, 1], ``latents [n, d_z]`` unscaled.

    ``latents`` are what `Inverter.encode` predicts of the images: for InvGAN the mapping network's w. ``categories
    [n, d_l]`` int64 is None where the generator takes none.
    """

    images: Tensor
    latents: Tensor
    categories: Tensor | None = None


class Inverter:
    """A trained model with the two maps, image → latent and latent → image.

    Latents are *unscaled* (z, the variables with the prior's law) unless a method says otherwise; z∘s is what
    the generator sees. All results lie on the CPU, and nothing keeps a graph: for gradients, work
    with ``model``.

    Attributes:
        model: the networks.
        batch_images: images that go through a network at once; lower it when memory runs out.
    """

    def __init__(self, model: TrainedModel, batch_images: int = 64) -> None:
        if batch_images < 1:
            raise UserError(f"batch_images={batch_images} is not allowed: it must be >= 1")
        self.model = model
        self.batch_images = batch_images

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str | None = None, batch_images: int = 64) -> "Inverter":
        """Load a run's model.

        Args:
            path: a run's folder (its ``model/`` is used), or a model's folder.
            device: ``cpu``, ``cuda``, ``cuda:1``, …; by default a GPU where there is one.
            batch_images: see the class.

        Raises:
            UserError: if there is no complete, readable model at the path, or no such device.
        """
        return cls(TrainedModel.load(model_folder(path), _find_device(device)), batch_images)

    @property
    def scale(self) -> Tensor:
        """s ``[d_z]``, ones where the method keeps s = 1."""
        return self.model.scale.cpu()

    @property
    def variance(self) -> Tensor | None:
        """v ``[d_z]``, None where the method has none."""
        return None if self.model.variance is None else self.model.variance.cpu()

    @torch.no_grad()
    def encode(self, images: ImageLike) -> Tensor:
        """Images to unscaled latents ``[n, d_z]``, E(x).

        Args:
            images: float ``[n, C, H, W]`` in [-1, 1] or uint8 in [0, 255] (tensor or array), or files, or
                Pillow images; see :func:`latentscale.inversion.images.as_model_input`.

        Raises:
            UserError: on images the model cannot take, or a method without an encoder.
        """
        self.model.require_encoder()
        batches = as_model_input(images, self.model.shape).split(self.batch_images)
        latents = torch.cat([self.model.encode(batch).cpu() for batch in batches])
        if not torch.isfinite(latents).all():
            raise UserError(
                f"the encoder of this model, trained for {self.model.step} steps, answers NaN: its training has "
                "diverged, use the model of another run or an earlier checkpoint"
            )
        return latents

    @torch.no_grad()
    def decode(self, latents: Tensor, already_scaled: bool = False, categories: Tensor | None = None) -> Tensor:
        """Latents to images ``[n, C, H, W]`` clipped to [-1, 1]; points ``[n, D]`` are not clipped.

        Args:
            latents: ``[n, d_z]``: z, or with ``already_scaled`` the z∘s that goes into G as it is.
            categories: ``[n, d_l]`` int64, where the generator takes them.

        Raises:
            UserError: on another shape, values that are not finite, or categories that are missing or unknown.
        """
        self._check_latents(latents)
        one_hots = None if categories is None else self._one_hots(categories, len(latents))
        return self._decode(latents, already_scaled, one_hots)

    @torch.no_grad()
    def generate(self, count: int, seed: int, categories: Tensor | None = None) -> Generated:
        """New images from fresh latents; a smaller count with the same seed gives the first of them.

        Args:
            categories: ``[count, d_l]`` int64 where the generator takes them; None draws them from P(C).
        """
        if count < 1:
            raise UserError(f"count={count} is not allowed: it must be >= 1")
        drawn = self.model.draw_latents(count, seed, Purpose.EVALUATION).to(self.model.dtype)
        latents = torch.cat([self.model.codes(batch).cpu() for batch in drawn.split(self.batch_images)])
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
    def mix_styles(self, coarse: Tensor, fine: Tensor, first_fine: int) -> Tensor:
        """Images with the coarse styles of one latent and the finer ones of another (I §4; style-based generators).

        Args:
            coarse, fine: ``[n, d_z]`` as :meth:`decode` takes them.
            first_fine: how many of the generator's convolutions, from 4² up, take ``coarse``; the others take ``fine``.

        Raises:
            UserError: if the generator takes one latent as a whole, or has not so many convolutions.
        """
        styles = getattr(self.model.method.networks.get("generator"), "style_count", 0)
        if not styles:
            raise UserError(
                f"the generator of this model (network.family={self.model.network.family}) takes its latent as a whole:"
                " styles can be mixed where network.family=style"
            )
        if not 0 <= first_fine <= styles:
            raise UserError(f"first_fine={first_fine} is not allowed: the generator has {styles} styles")
        self._check_latents(coarse)
        self._check_latents(fine)
        if coarse.shape != fine.shape:
            raise UserError(
                f"coarse and fine latents have shapes {list(coarse.shape)} and {list(fine.shape)}: give equal"
            )
        mixed = torch.stack([coarse] * first_fine + [fine] * (styles - first_fine), dim=1)
        return self._decode(mixed, False, None)

    def attribute_scores(self, latents: Tensor) -> Tensor:
        """``[n, columns]`` how much unscaled latents ``[n, d_z]`` have of each attribute; positive: has it (T eq. 36).

        Raises:
            UserError: for a model of another method than AEDLSGAN.
        """
        self._check_latents(latents)
        weight = attribute_directions(self.model)
        scaled = self.model.scaled(latents).cpu()
        return torch.stack([score(scaled, weight[:, column]) for column in range(weight.shape[1])], dim=1)

    def edit(self, latents: Tensor, attribute: int, target: float) -> Tensor:
        """Move latents along an attribute until their score of it is exactly ``target`` (T §3.2.1).

        Args:
            latents: unscaled, ``[n, d_z]``.
            attribute: column of :meth:`attribute_scores`: one for a binary label, one a category for others.

        Returns:
            ``[n, d_z]`` scaled latents, for :meth:`decode` with ``already_scaled=True``.

        Raises:
            UserError: for a model of another method than AEDLSGAN, or an attribute that it has not.
        """
        self._check_latents(latents)
        weight = attribute_directions(self.model)
        if not 0 <= attribute < weight.shape[1]:
            raise UserError(f"attribute={attribute} is not allowed: the model has {weight.shape[1]}, counted from 0")
        return edit(self.model.scaled(latents).cpu(), weight[:, attribute], target)

    def reconstruct(self, images: ImageLike) -> Tensor:
        """G(E(x)∘s): images, as for :meth:`encode`, to their reconstructions, as from :meth:`decode`."""
        return self.decode(self.encode(images))

    def ood_score(self, images: ImageLike) -> Tensor:
        """How unlike the training data each image is: ``[n]`` float64 nats, higher is stranger (T eq. 37).

        Only differences mean something: compare with the scores of images known to be ordinary.

        Raises:
            UserError: as :meth:`encode`.
        """
        return self.ood_score_of_latents(self.encode(images))

    def ood_score_of_latents(self, latents: Tensor) -> Tensor:
        """:meth:`ood_score` of images that are encoded already, from their unscaled latents ``[n, d_z]``."""
        if self.model.variance is None:
            raise UserError(f"a model trained by {self.model.method.name} has no latent variance, so no OOD score")
        return latent_negative_log_likelihood(latents.cpu(), self.model.variance.cpu(), self.model.prior)

    def _check_latents(self, latents: Tensor) -> None:
        dim = self.model.latent_dim
        if latents.ndim != 2 or latents.shape[1] != dim or len(latents) == 0:
            raise UserError(f"latents have shape {list(latents.shape)}, the model takes [n, {dim}]")
        if not torch.isfinite(latents).all():
            raise UserError("latents hold NaN or infinite values: give finite values")

    def _one_hots(self, categories: Tensor, count: int) -> Tensor:
        sizes = self.model.categories
        if not sizes:
            raise UserError(f"a model trained by {self.model.method.name} takes no categories: leave them out")
        fits = categories.shape == (count, len(sizes)) and not categories.is_floating_point()
        if not fits or bool((categories < 0).any() or (categories >= torch.tensor(sizes)).any()):
            raise UserError(
                f"categories must be [{count}, {len(sizes)}] integers from 0 to below {list(sizes)}, one column a label"
            )
        return one_hot(categories.long().cpu(), sizes)

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
    except (RuntimeError, AssertionError) as error:
        # torch's own messages run over several lines.
        reason = str(error).splitlines()[0] if str(error) else "not available"
        raise UserError(f"device {device} cannot be used ({reason}): give cpu, or a device that is here") from error
    return found
