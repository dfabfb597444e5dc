"""How much variety the scaled latent leaves room for."""

from latentscale.evaluation.metric import Direction, Figure, Metric, Need
from latentscale.evaluation.metrics.effective_dimensions import latent_scale
from latentscale.evaluation.samples import Samples


def latent_entropy(samples: Samples) -> dict[str, float]:
    """Differential entropy of z∘s: h(Z) + Σ log s_i, and h(Z) where s stays 1."""
    model = samples.model
    entropy = (
        latent_scale(model).entropy(model.prior).item()
        if model.uses_dynamic_scale
        else model.prior.entropy(model.latent_dim)
    )
    return {"latent_entropy_nats": entropy}


LATENT_ENTROPY = Metric(
    name="latent_entropy",
    description="room for variety in the scaled latent; it falls as the scale concentrates on fewer dimensions",
    source="Cho 2025, §3.2",
    figures=(Figure("latent_entropy_nats", Direction.NEITHER, "nats", ".1f"),),
    needs=frozenset({Need.LATENT_VARIANCE}),
    measure=latent_entropy,
    shown="latent entropy {latent_entropy_nats}",
)
