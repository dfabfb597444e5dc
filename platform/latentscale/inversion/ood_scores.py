"""Out-of-distribution scores of predicted latents."""

import math

from torch import Tensor

from latentscale.latents.priors import Prior

VARIANCE_FLOOR = 1e-8
"""Lower bound of v: a dimension whose v has fallen to 0 would divide by zero."""


def latent_negative_log_likelihood(latent: Tensor, variance: Tensor, prior: Prior) -> Tensor:
    """AnoDLSGAN's score −Σ log f(E_i(x) | 0, v_i), f the prior with mean 0 and variance v_i (Cho 2025, eq. 37).

    Outside the prior's support the density is 0, which would give infinite scores that cannot be ranked. There the
    score is that of the support's boundary, plus 1 for every half-width of the support beyond it (for every standard
    deviation if the support is a half-line). For uniform latents, whose half-width is h_i = √(3 v_i), the score is
    Σ [log 2h_i + max(0, |E_i| − h_i) / h_i].

    Args:
        latent: ``[n, d_z]`` unscaled predictions E(x).
        variance: ``[d_z]`` running second moment v of the predicted fake latents, at least `VARIANCE_FLOOR`.
        prior: distribution of one latent element; it is shifted and stretched to mean 0 and variance v_i.

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
