"""Whether reconstructions are better than the average image."""

from latentscale.evaluation.metric import Direction, Figure, Metric, Need
from latentscale.evaluation.metrics.mean_image import mean_image_psnr_db
from latentscale.evaluation.metrics.psnr import pooled_psnr_db, reconstruction_errors
from latentscale.evaluation.samples import Samples


def gain(samples: Samples) -> dict[str, float]:
    """The difference of two pooled PSNRs."""
    return {"gain_db": pooled_psnr_db(samples) - samples.once(mean_image_psnr_db)}


def verdict(gain_db: float) -> str:
    """Whether the latent carries the image."""
    return "the latent carries the image" if gain_db > 0 else "the latent does not carry the image yet"


GAIN = Metric(
    name="gain",
    description="how far the reconstructions' PSNR is above the mean image's",
    source="difference of psnr and mean_image",
    figures=(Figure("gain_db", Direction.HIGHER, "dB", "+.2f"),),
    needs=frozenset({Need.INVERSION, Need.IMAGES}),
    measure=gain,
    shown="gain over the mean image {gain_db}",
    per_real=(reconstruction_errors,),
    verdict=verdict,
)
