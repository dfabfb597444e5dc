"""Elastic InfoGAN's contrastive option: Q gives two views of a real the same class.

Ojha et al. 2020; Cho 2025, §2.1.2. L_q += λ NT-Xent(Q(x), Q(view(x))) on reals, of Q's logits. A view is
rotated, zoomed, shifted, mirrored and given another gamma. How much of each preserves a sample's identity depends on
the data, so every strength is a setting.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentscale.errors import UserError
from latentscale.latents.draws import Purpose
from latentscale.losses.classification import logits_of
from latentscale.losses.nt_xent import contrastive
from latentscale.methods.base import Draw, MethodSettings
from latentscale.methods.categorical import identity
from latentscale.methods.phase import Batch, Weighted
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting


@dataclass
class ContrastiveSettings(MethodSettings):
    contrastive_weight: float = setting(0.0, "weight of the contrastive loss of reals in L_q; 0: none", minimum=0)
    contrastive_temperature: float = setting(0.5, "τ of the contrastive loss", above=0)
    view_rotation_degrees: float = setting(10.0, "a view is rotated by up to this angle", unit="degrees", minimum=0)
    view_zoom: float = setting(1.1, "a view is enlarged or reduced by up to this factor", minimum=1)
    view_shift: float = setting(0.1, "a view is shifted by up to this fraction of its sides", minimum=0, maximum=1)
    view_flip: bool = setting(False, "whether half of the views are mirrored left to right")
    view_gamma: float = setting(1.2, "a view's gamma lies between 1/view_gamma and view_gamma", minimum=1)


def check_contrastive(settings: ContrastiveSettings, stream_batch: int) -> None:
    """Refuse streams of one sample, which leave the contrastive loss no negatives.

    Raises:
        UserError: naming the keys.
    """
    if settings.contrastive_weight and stream_batch < 2:
        raise UserError(
            "method.contrastive_weight compares each sample with the others of its stream, and there is 1 sample per"
            " stream: set distributed.streams to at most half of training.batch"
        )


def check_views(settings: ContrastiveSettings, spec: ModelSpec) -> None:
    """Refuse samples that are not images.

    Raises:
        UserError: naming the key.
    """
    if settings.contrastive_weight and len(spec.shape) != 3:
        raise UserError("method.contrastive_weight needs images, but the data are points: set it to 0")


def view_draws(settings: ContrastiveSettings) -> dict[str, Draw]:
    """What a view is drawn from: six uniforms per real."""
    return {"view": Draw(Purpose.CONTRASTIVE_VIEW, 6, identity)} if settings.contrastive_weight else {}


def view(settings: ContrastiveSettings, x: Tensor, draws: Tensor) -> Tensor:
    """Images ``[b, C, H, W]`` in [-1, 1] and uniforms ``[b, 6]`` to another view of each; borders are repeated."""
    angle, zoom, right, down, gamma = (2 * draws[:, :5] - 1).unbind(1)
    angle = angle * math.radians(settings.view_rotation_degrees)
    # the input coordinates of each output pixel: the inverse of what is done to the image
    size = torch.exp(zoom * math.log(settings.view_zoom))
    mirrored = torch.where(draws[:, 5] < 0.5, -1.0, 1.0).to(x.dtype) if settings.view_flip else torch.ones_like(size)
    cosine, sine = torch.cos(angle) / size, torch.sin(angle) / size
    # half of a side is 1 in these coordinates
    across, along = 2 * settings.view_shift * right, 2 * settings.view_shift * down
    rows = torch.stack([mirrored * cosine, -sine, across, mirrored * sine, cosine, along], dim=1).unflatten(1, (2, 3))
    grid = F.affine_grid(rows.to(x.dtype), list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    power = torch.exp(gamma * math.log(settings.view_gamma)).to(x.dtype)[:, None, None, None]
    return 2 * ((moved + 1) / 2).clamp(0, 1) ** power - 1


def contrastive_terms(settings: ContrastiveSettings, classifier: nn.Module, batch: Batch) -> Weighted:
    """λ NT-Xent of the reals and a view of each; no term where the weight is 0."""
    if not settings.contrastive_weight:
        return {}
    seen, other = (
        logits_of(classifier(images)) for images in (batch.real, view(settings, batch.real, batch.draws["view"]))
    )
    loss = contrastive(seen, other, batch.streams, settings.contrastive_temperature)
    return {"contrastive": (settings.contrastive_weight, loss)}
