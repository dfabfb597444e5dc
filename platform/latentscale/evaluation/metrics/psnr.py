"""Peak signal-to-noise ratio of reconstructions.

Images lie in [-1, 1], a range of 2, and reconstructions are clipped to it. ``psnr_db`` is that of the squared error
pooled over all images; published figures are the mean of the images' own PSNRs (Cho 2025, §4), ``psnr_per_image_db``.
"""

import torch
from torch import Tensor

from latentscale.evaluation.metric import Direction, Figure, Metric, Need
from latentscale.evaluation.samples import RealBatch, Samples

PSNR_CEILING_DB = 100.0
"""The PSNR of identical images is infinite, which would spoil every average: larger values become this one."""


def psnr_db(squared_error: Tensor) -> Tensor:
    """Mean squared errors of images in [-1, 1] to PSNR in dB (range 2), at most PSNR_CEILING_DB."""
    floor = 4.0 * 10.0 ** (-PSNR_CEILING_DB / 10.0)
    return 10.0 * torch.log10(4.0 / squared_error.double().clamp_min(floor))


def squared_error_per_image(images: Tensor, others: Tensor) -> Tensor:
    """``[n]`` float64 mean squared errors between two ``[n, C, H, W]``."""
    return (images.double() - others.double()).square().flatten(1).mean(dim=1)


def reconstruction_errors(batch: RealBatch) -> Tensor:
    """Mean squared error of G(E(x)∘s) against each x, ``[b]`` float64."""
    return squared_error_per_image(batch.samples, batch.reconstructions)


def pooled_psnr_db(samples: Samples) -> float:
    """PSNR of the squared error averaged over all images."""
    return psnr_db(samples.rows(reconstruction_errors).mean()).item()


def psnr(samples: Samples) -> dict[str, float]:
    """The pooled PSNR, and the mean of the images' own."""
    return {
        "psnr_db": pooled_psnr_db(samples),
        "psnr_per_image_db": psnr_db(samples.rows(reconstruction_errors)).mean().item(),
    }


PSNR = Metric(
    name="psnr",
    description="how close G(E(x)) comes to a real image x; every 6 dB halve its root-mean-square error",
    source="Horé and Ziou 2010; range 2, clipped",
    figures=(
        Figure("psnr_db", Direction.HIGHER, "dB", ".2f"),
        Figure("psnr_per_image_db", Direction.HIGHER, "dB", ".2f"),
    ),
    needs=frozenset({Need.INVERSION, Need.IMAGES}),
    measure=psnr,
    shown="reconstruction {psnr_db} PSNR (mean of the images' own: {psnr_per_image_db}) over {real_images} real images",
    per_real=(reconstruction_errors,),
)
