"""Out-of-distribution scores of predicted latents."""

import torch
from torch import Tensor

from latentscale.latents.priors import Prior, Uniform

VARIANCE_FLOOR = 1e-8
"""Running variances are floored here: a dimension whose v has died would otherwise divide by zero."""


def latent_negative_log_likelihood(latent: Tensor, variance: Tensor, prior: Prior) -> Tensor:
    """AnoDLSGAN's score: −Σ log f(E_i(x) | 0, v_i), f the prior's law of variance v_i (T eq. 37).

    For uniform latents the density is 0 outside its support, and an infinite score cannot rank, so there,
    with the half-width h_i = √(3 v_i), it is Σ [log 2h_i + max(0, |E_i| − h_i) / h_i]: the exact value
    inside the support and a slope outside it.

    Args:
        latent: ``[n, d_z]`` unscaled predictions E(x).
        variance: ``[d_z]`` running second moment v of the predicted fake latents, floored at VARIANCE_FLOOR.
        prior: the law of one latent element, mean 0 and variance 1.

    Returns:
        ``[n]`` float64 scores in nats on latent's device; higher is less like the training data.
    """
    latent = latent.double()
    variance = variance.to(latent.device).double().clamp_min(VARIANCE_FLOOR)
    if isinstance(prior, Uniform):
        half_width = (3.0 * variance).sqrt()
        beyond = (latent.abs() - half_width).clamp_min(0.0) / half_width
        return (torch.log(2.0 * half_width) + beyond).sum(dim=1)
    deviation = variance.sqrt()
    return (deviation.log() - prior.log_density(latent / deviation)).sum(dim=1)
