"""What the training was for: images to latents and back, with a trained model."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from latentscale.errors import UserError
from latentscale.inversion.images import ImageLike, as_model_input
from latentscale.inversion.model import TrainedModel, model_folder
from latentscale.inversion.scores import latent_negative_log_likelihood
from latentscale.latents.draws import Purpose


class Generated(NamedTuple):
    """New samples: ``images [n, *shape]`` clipped to [-1, 1], ``latents [n, d_z]`` unscaled."""

    images: Tensor
    latents: Tensor


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
    def decode(self, latents: Tensor, already_scaled: bool = False) -> Tensor:
        """Latents to images ``[n, C, H, W]`` clipped to [-1, 1]; points ``[n, D]`` are not clipped.

        Args:
            latents: ``[n, d_z]``: z, or with ``already_scaled`` the z∘s that goes into G as it is.

        Raises:
            UserError: on another shape or values that are not finite.
        """
        dim = self.model.latent_dim
        if latents.ndim != 2 or latents.shape[1] != dim or len(latents) == 0:
            raise UserError(f"latents have shape {list(latents.shape)}, the model takes [n, {dim}]")
        if not torch.isfinite(latents).all():
            raise UserError("latents hold NaN or infinite values: give finite values")
        images = []
        for batch in latents.split(self.batch_images):
            images.append(self.model.decode(batch, already_scaled=already_scaled).cpu())
        joined = torch.cat(images)
        return joined.clamp(-1.0, 1.0) if self.model.makes_images else joined

    def generate(self, count: int, seed: int) -> Generated:
        """New images from fresh latents; a smaller count with the same seed gives the first of them."""
        if count < 1:
            raise UserError(f"count={count} is not allowed: it must be >= 1")
        latents = self.model.draw_latents(count, seed, Purpose.EVALUATION).to(self.model.dtype)
        return Generated(self.decode(latents), latents)

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
