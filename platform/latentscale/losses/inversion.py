"""Losses that make the encoder invert the generator (Cho 2025, eq. 15-16, 31-35, 39).

Every loss is the mean over the batch of the average over dimensions, 0-dim, computed in float32 or above.
"""

import torch.nn.functional as F
from torch import Tensor

from latentscale.latents.scale import at_least_float32

VARIANCE_FLOOR = 1e-7
"""Added to e^lv under the squared error (Cho 2025, eq. 16), which bounds the loss of an over-confident encoder."""


def latent_mse(latent: Tensor, predicted: Tensor) -> Tensor:
    """``avg((z − E)²)`` of ``[b, d_z]`` tensors (MSEGAN, Cho 2025, eq. 15)."""
    return F.mse_loss(at_least_float32(predicted), at_least_float32(latent))


def scaled_latent_mse(latent: Tensor, predicted: Tensor, scale: Tensor) -> Tensor:
    """``avg(((z − E)∘s)²)`` of ``[b, d_z]`` tensors and ``s`` ``[d_z]`` (DLSGAN, Cho 2025, eq. 31-33)."""
    difference = at_least_float32(latent) - at_least_float32(predicted)
    return (difference * scale).square().mean()


def latent_nll(latent: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """``avg(lv + (z − E)²/(e^lv + 1e-7))`` of ``[b, d_z]`` tensors (InfoGAN, continuous, Cho 2025, eq. 16).

    Twice the Gaussian negative log-likelihood without its constant log 2π.
    """
    log_variance = at_least_float32(log_variance)
    squared = (at_least_float32(latent) - at_least_float32(mean)).square()
    return (log_variance + squared / (log_variance.exp() + VARIANCE_FLOOR)).mean()


def feature_mse(real: Tensor, fake: Tensor) -> Tensor:
    """``avg((F(x) − F(G(z)))²)`` of ``[b, F]`` features (PVDGAN's L_rec, Cho 2025, eq. 39)."""
    return F.mse_loss(at_least_float32(fake), at_least_float32(real))
