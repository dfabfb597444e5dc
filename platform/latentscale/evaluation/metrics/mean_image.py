"""The baseline of every reconstruction: the average image, whatever the image."""

import torch

from latentscale.evaluation.metric import Direction, Figure, Metric, Need
from latentscale.evaluation.metrics.psnr import psnr_db, squared_error_per_image
from latentscale.evaluation.samples import Samples, as_floats


def mean_image_psnr_db(samples: Samples) -> float:
    """PSNR of the mean image against all real images, of the squared error pooled over them."""
    reals, batch_images = samples.reals, samples.batch_images
    total = torch.zeros(reals.shape[1:], dtype=torch.float64)
    for batch in reals.split(batch_images):
        total += as_floats(batch).cpu().double().sum(dim=0)
    mean = total / len(reals)
    pooled = 0.0
    for batch in reals.split(batch_images):
        pooled += squared_error_per_image(as_floats(batch).cpu(), mean.expand_as(batch)).sum().item()
    return psnr_db(torch.tensor(pooled / len(reals), dtype=torch.float64)).item()


def mean_image(samples: Samples) -> dict[str, float]:
    """A fact about the data; no network takes part."""
    return {"mean_image_psnr_db": samples.once(mean_image_psnr_db)}


MEAN_IMAGE = Metric(
    name="mean_image",
    description="what predicting the average image for every image would score",
    source="baseline; as psnr",
    figures=(Figure("mean_image_psnr_db", Direction.NEITHER, "dB", ".2f"),),
    needs=frozenset({Need.IMAGES}),
    measure=mean_image,
    shown="mean image {mean_image_psnr_db} PSNR",
)
