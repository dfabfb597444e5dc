"""Out-of-distribution scores of predicted latents."""

import math

from torch import Tensor

from latentscale.latents.priors import Prior

VARIANCE_FLOOR = 1e-8
"""Running variances are floored here: a dimension whose v has died would otherwise divide by zero."""


def latent_negative_log_likelihood(latent: Tensor, variance: Tensor, prior: Prior) -> Tensor:
    """AnoDLSGAN's score: −Σ log f(E_i(x) | 0, v_i), f the prior's law of mean 0 and variance v_i (T eq. 37).

    Outside its support a law's density is 0, and an infinite score cannot rank: there the score is that of the
    support's end, and grows by 1 for every half-width of the support (of a half-line: for every deviation) beyond it.
    For uniform latents, of half-width h_i = √(3 v_i), that is Σ [log 2h_i + max(0, |E_i| − h_i) / h_i].

    Args:
        latent: ``[n, d_z]`` unscaled predictions E(x).
        variance: ``[d_z]`` running second moment v of the predicted fake latents, floored at VARIANCE_FLOOR.
        prior: the law of one latent element; one of another mean or variance is moved and stretched.

    Returns:
        ``[n]`` float64 scores in nats on latent's device; higher is less like the training data.
    """
    latent = latent.double()
    variance = variance.to(latent.device).double().clamp_min(VARIANCE_FLOOR)
    low, high = prior.support
    stretch = math.sqrt(prior.variance) / variance.sqrt()
    moved = prior.mean + latent * stretch
    inside = moved.clamp(low, high)
    unit = (high - low) / 2 if math.isfinite(high - low) else math.sqrt(prior.variance)
    return ((moved - inside).abs() / unit - prior.log_density(inside) - stretch.log()).sum(dim=1)
