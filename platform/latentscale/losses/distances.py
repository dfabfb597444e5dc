"""Distances between two sets of samples, within each stream."""

import torch
from torch import Tensor

from latentscale.latents.scale import at_least_float32


def squared_mmd(x: Tensor, y: Tensor, streams: int) -> Tensor:
    """Squared maximum mean discrepancy (Gretton et al. 2012), biased estimator, averaged over streams: 0-dim, ≥ 0.

    mean k(x, x') + mean k(y, y') − 2 mean k(x, y) over all pairs, each sample with itself too. The kernel is
    k(a, b) = exp(−‖a − b‖² / (2σ²)), where σ is the median distance between distinct samples of the stream's pooled
    x and y (the lower one of an even number of distances); no gradient passes through σ.

    Args:
        x: ``[n · streams, d]``, the first sample of each stream, then the second of each, and so on.
        y: ``[m · streams, d]``, likewise.
        streams: their number.
    """
    points = at_least_float32(torch.cat([x, y])).unflatten(0, (-1, streams)).transpose(0, 1)
    n, count = len(x) // streams, points.shape[1]
    # differences, not a Gram matrix: autocast would take its product in half precision
    squared = (points[:, :, None] - points[:, None]).square().sum(-1)
    rows, columns = torch.triu_indices(count, count, 1, device=points.device)
    median = squared.detach()[:, rows, columns].median(1).values.clamp_min(torch.finfo(squared.dtype).tiny)
    kernel = (-squared / (2.0 * median[:, None, None])).exp()
    share = torch.cat([points.new_full((n,), 1.0 / n), points.new_full((count - n,), -1.0 / (count - n))])
    return (kernel * share[:, None] * share).sum((1, 2)).mean()
