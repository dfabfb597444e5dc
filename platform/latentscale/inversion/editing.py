"""Editing attributes of an image in its latent (T §3.2.1)."""

import math

import torch
from torch import Tensor

from latentscale.errors import UserError
from latentscale.inversion.model import TrainedModel
from latentscale.latents.attributes import FixedClassifier


def attribute_directions(model: TrainedModel) -> Tensor:
    """w ``[d_z, columns]`` of an AEDLSGAN, on the CPU.

    Raises:
        UserError: for a model of another method.
    """
    attributes = model.method.statistics.get("attributes")
    if not isinstance(attributes, FixedClassifier):
        raise UserError(f"a model trained by {model.method.name} has no attributes in its latent: train with aedlsgan")
    return attributes.weight.detach().cpu()


def score(scaled_latent: Tensor, direction: Tensor) -> Tensor:
    """``((z∘s)·w_i)/√d_z`` of ``[…, d_z]`` scaled latents along w_i ``[d_z]``: ``[…]``, positive where it is had."""
    return (scaled_latent * direction).sum(-1) / math.sqrt(direction.numel())


def edit(scaled_latent: Tensor, direction: Tensor, target: Tensor | float) -> Tensor:
    """The nearest scaled latent whose score is ``target``: z∘s + (t·√d_z − (z∘s)·w_i)·w_i/‖w_i‖².

    The result is scaled already: it goes into the generator as it is.

    Args:
        scaled_latent: z∘s ``[…, d_z]``.
        direction: w_i ``[d_z]``, the column of w that belongs to the attribute.
        target: t, one for all or ``[…]``.

    Returns:
        ``[…, d_z]`` of ``scaled_latent``'s type. Worked out in float64.
    """
    latent, w = scaled_latent.double(), direction.double()
    missing = torch.as_tensor(target, dtype=torch.float64, device=latent.device) - score(latent, w)
    moved = latent + (missing * math.sqrt(w.numel())).unsqueeze(-1) * w / w.square().sum()
    return moved.to(scaled_latent.dtype)
