"""Editing an image's attributes through its latent (Cho 2025, §3.2.1)."""

import math

import torch
from torch import Tensor

from latentscale.errors import UserError
from latentscale.inversion.trained_model import TrainedModel
from latentscale.latents.attributes import FixedClassifier


def attribute_directions(model: TrainedModel) -> Tensor:
    """The attribute directions w ``[d_z, columns]`` of an AEDLSGAN, on the CPU.

    Raises:
        UserError: if another method trained the model.
    """
    attributes = model.method.statistics.get("attributes")
    if not isinstance(attributes, FixedClassifier):
        raise UserError(
            f"a model trained by {model.method.name} has no attribute directions: use a model trained by aedlsgan"
        )
    return attributes.weight.detach().cpu()


def attribute_score(scaled_latent: Tensor, direction: Tensor) -> Tensor:
    """((z∘s)·w_i)/√d_z, positive if the image has the attribute (Cho 2025, eq. 36).

    Args:
        scaled_latent: z∘s ``[…, d_z]``.
        direction: w_i ``[d_z]``.

    Returns:
        ``[…]``.
    """
    return (scaled_latent * direction).sum(-1) / math.sqrt(direction.numel())


def edit_latent(scaled_latent: Tensor, direction: Tensor, target: Tensor | float) -> Tensor:
    """The nearest scaled latent whose score is ``target``: z∘s + (t·√d_z − (z∘s)·w_i)·w_i/‖w_i‖² (Cho 2025, §3.2.1).

    Args:
        scaled_latent: z∘s ``[…, d_z]``.
        direction: w_i ``[d_z]``, the attribute's column of w.
        target: t, a number or ``[…]``.

    Returns:
        Scaled latents ``[…, d_z]`` in ``scaled_latent``'s type, computed in float64.
    """
    latent, w = scaled_latent.double(), direction.double()
    missing = torch.as_tensor(target, dtype=torch.float64, device=latent.device) - attribute_score(latent, w)
    moved = latent + (missing * math.sqrt(w.numel())).unsqueeze(-1) * w / w.square().sum()
    return moved.to(scaled_latent.dtype)
