"""How far the encoder is from the latent behind a generated sample."""

from torch import Tensor

from latentscale.evaluation.metric import Direction, Figure, Metric, Need
from latentscale.evaluation.samples import FakeBatch, Samples


def scaled_latents(batch: FakeBatch) -> Tensor:
    """z∘s, ``[b, d_z]`` float64."""
    return batch.latents.cpu().double() * batch.model.scale.cpu().double()


def latent_errors(batch: FakeBatch) -> Tensor:
    """avg(((z − E(G(z∘s)))∘s)²), ``[b]`` float64 (Cho 2025, eq. 31; with s = 1 eq. 15)."""
    predicted = batch.encoded.cpu().double() * batch.model.scale.cpu().double()
    return (scaled_latents(batch) - predicted).square().mean(dim=1)


def latent_error(samples: Samples) -> dict[str, float]:
    """Mean and median over the draws; and the variance of z∘s, averaged over elements."""
    errors = samples.rows(latent_errors)
    return {
        "latent_error_mean": errors.mean().item(),
        "latent_error_median": errors.quantile(0.5).item(),
        "latent_variance": samples.rows(scaled_latents).var(dim=0, correction=0).mean().item(),
    }


LATENT_ERROR = Metric(
    name="latent_error",
    description="how far the encoder is from the latent behind a generated sample; 0 is exact, and always predicting"
    " the mean latent would score the latent variance",
    source="Cho 2025, eq. 31; eq. 15 where s = 1",
    figures=(
        Figure("latent_error_mean", Direction.LOWER),
        Figure("latent_error_median", Direction.LOWER),
        Figure("latent_variance", Direction.NEITHER, format=".3g"),
    ),
    needs=frozenset({Need.GENERATION, Need.INVERSION}),
    measure=latent_error,
    shown="latent error {latent_error_median} (median; mean {latent_error_mean}; latent variance {latent_variance})"
    " over {fresh_draws} fresh draws",
    per_fake=(scaled_latents, latent_errors),
)
