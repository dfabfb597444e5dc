"""The contrastive loss of two views of the same samples, NT-Xent (Chen et al. 2020, eq. 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from latentscale.latents.scale import at_least_float32


def contrastive(first: Tensor, second: Tensor, streams: int, temperature: float) -> Tensor:
    """mean(−log(exp(cos(a, a⁺)/τ) / Σ exp(cos(a, b)/τ))), 0-dim, in nats.

    a runs over both views of all samples, a⁺ is the other view of a's sample, and b runs over all views of the stream
    but a. So a sample's negatives are the other samples of its own stream, however many streams go through together.

    Args:
        first, second: ``[n · streams, k]`` features of the two views, the first sample of each stream, then the second
            of each, and so on; n ≥ 2.
        streams: their number.
        temperature: τ.
    """
    views = F.normalize(at_least_float32(torch.cat([first, second])), dim=1).unflatten(0, (-1, streams)).transpose(0, 1)
    count = views.shape[1]
    # products and sums, not a matmul: autocast would take it in half precision
    cosine = (views[:, :, None] * views[:, None]).sum(-1)
    itself = torch.eye(count, dtype=torch.bool, device=views.device)
    likelihood = (cosine / temperature).masked_fill(itself, -torch.inf).log_softmax(2)
    other = torch.arange(count, device=views.device).roll(count // 2)
    return -likelihood.gather(2, other[None, :, None].expand(streams, -1, -1)).mean()
