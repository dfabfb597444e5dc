"""Structural similarity of reconstructions (Wang et al. 2004).

The window is the 11×11 Gaussian of σ 1.5; a similarity is averaged over the places where it fits whole.
"""

from torch import Tensor

from latentscale.evaluation.metric import Direction, Figure, Metric, Need
from latentscale.evaluation.samples import RealBatch, Samples

SSIM_WINDOW_PIXELS = 11


def ssim_per_image(images: Tensor, others: Tensor) -> Tensor:
    """``[n]`` float64 structural similarities (Wang et al. 2004, eq. 13) of two ``[n, C, H, W]`` in [-1, 1].

    Averaged over the places where the window fits whole, and over channels; H and W >= SSIM_WINDOW_PIXELS.
    """
    # imported here: it costs a second, and images below the window never need it
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, everywhere = structural_similarity_index_measure(
        images.float(), others.float(), sigma=1.5, data_range=(-1.0, 1.0), reduction="none", return_full_image=True
    )
    # torchmetrics averages over windows of reflected border pixels too, which published figures do not.
    border = SSIM_WINDOW_PIXELS // 2
    return everywhere[..., border:-border, border:-border].double().mean(dim=(1, 2, 3))


def similarities(batch: RealBatch) -> Tensor:
    """Of G(E(x)∘s) and each x, ``[b]`` float64."""
    return ssim_per_image(batch.reconstructions, batch.samples)


def ssim(samples: Samples) -> dict[str, float]:
    """The mean over images."""
    return {"ssim": samples.rows(similarities).mean().item()}


SSIM = Metric(
    name="ssim",
    description="likeness of local structure in G(E(x)) and x; 1 is identical, 0 unrelated",
    source="Wang et al. 2004, eq. 13",
    figures=(Figure("ssim", Direction.HIGHER),),
    needs=frozenset({Need.INVERSION, Need.IMAGES}),
    measure=ssim,
    shown="SSIM {ssim}",
    per_real=(similarities,),
    minimum_pixels=SSIM_WINDOW_PIXELS,
)
