"""How many latent dimensions the encoder can tell apart."""

from latentscale.evaluation.metric import Direction, Figure, Metric, Need
from latentscale.evaluation.samples import Samples
from latentscale.inversion.trained_model import TrainedModel
from latentscale.latents.scale import LatentScale


def latent_scale(model: TrainedModel) -> LatentScale:
    """A float64 copy of the model's running variance v on the CPU; for models that have one."""
    assert model.variance is not None
    scale = LatentScale(model.latent_dim).double()
    scale.variance.copy_(model.variance.cpu())
    return scale


def effective_dimensions(samples: Samples) -> dict[str, float]:
    """(Σ v)² / Σ v² of the running variance v."""
    return {"effective_dimensions": latent_scale(samples.model).effective_dimensions().item()}


EFFECTIVE_DIMENSIONS = Metric(
    name="effective_dimensions",
    description="how many latent dimensions the encoder can tell apart; with few of them a low latent error is easy, so"
    " read it beside the PSNR",
    source="participation ratio of Gao et al. 2017, of v in Cho 2025, eq. 31",
    figures=(Figure("effective_dimensions", Direction.NEITHER, format=".1f"),),
    needs=frozenset({Need.LATENT_VARIANCE}),
    measure=effective_dimensions,
    shown="effective dimensions {effective_dimensions} of {latent_dimensions}",
)
