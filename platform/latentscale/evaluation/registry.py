"""The metrics by name, in the order of a report."""

from latentscale.evaluation.metric import Metric
from latentscale.evaluation.metrics.accuracy import ACCURACY
from latentscale.evaluation.metrics.effective_dimensions import EFFECTIVE_DIMENSIONS
from latentscale.evaluation.metrics.gain import GAIN
from latentscale.evaluation.metrics.latent_entropy import LATENT_ENTROPY
from latentscale.evaluation.metrics.latent_error import LATENT_ERROR
from latentscale.evaluation.metrics.mean_image import MEAN_IMAGE
from latentscale.evaluation.metrics.psnr import PSNR
from latentscale.evaluation.metrics.ssim import SSIM

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        LATENT_ERROR,
        PSNR,
        MEAN_IMAGE,
        GAIN,
        SSIM,
        EFFECTIVE_DIMENSIONS,
        LATENT_ENTROPY,
        ACCURACY,
    )
}
