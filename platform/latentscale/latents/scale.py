"""The dynamic latent scale (Cho 2025, §3.2, eq. 31-33, alg. 2)."""

import torch
from torch import Tensor

from latentscale.latents.priors import Prior
from latentscale.latents.statistic import Statistic

SCALE_FLOOR = 1e-12
"""Where s_i enters a logarithm it is floored here: a dimension without variance counts −27.6 nats, not −∞."""


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor itself in float32 or float64, widened to float32 from a half precision."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


class LatentScale(Statistic):
    """The running second moment ``v`` of the predicted fake latents, and the scale ``s`` made of it.

    ``v`` is the buffer ``variance`` ``[d_z]``: float32, or float64 after ``.double()``; never less. Nothing here
    carries a gradient, and nothing moves a value to the host.

    Args:
        dim: d_z.
        start: the value every element of ``v`` starts at; any equal start gives s = 1.
        decay: of the moving average, per training step.
    """

    variance: Tensor

    def __init__(self, dim: int, start: float = 1e-4, decay: float = 0.999) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("variance", torch.full((dim,), start))

    @property
    def size(self) -> int:
        """d_z, the width of :meth:`contribution`."""
        return self.variance.numel()

    @torch.no_grad()
    def scale(self) -> Tensor:
        """``s = sqrt(d_z · v / Σ v)``, ``[d_z]``, so that ‖s‖² = d_z (Cho 2025, eq. 32)."""
        mean = self.variance.mean().clamp_min(torch.finfo(self.variance.dtype).tiny)
        return (self.variance / mean).sqrt()

    @staticmethod
    @torch.no_grad()
    def contribution(latent: Tensor) -> Tensor:
        """Sum of squares ``[d_z]`` of predicted fake latents ``[n, d_z]``, accumulated in float32 or above.

        Contributions of different samples add up, so that phases, streams and processes pool as samples; the
        count that belongs to this one is n.
        """
        return at_least_float32(latent).square().sum(0)

    @torch.no_grad()
    def update(self, total: Tensor, count: Tensor | float, apply: Tensor) -> None:
        """``v ← decay · v + (1 − decay) · total / count`` where ``apply`` is 1, else ``v`` stays.

        The second moment is raw, not centred (Cho 2025, alg. 2).

        Args:
            total: ``[d_z]``, the summed contributions of the global batch.
            count: of the samples in it.
            apply: 0-dim, 1 or 0; with 0 even a non-finite ``total`` leaves ``v`` untouched.
        """
        moved = torch.lerp(total.to(self.variance.dtype) / count, self.variance, self.decay)
        self.variance.copy_(torch.where(apply > 0, moved, self.variance))

    def entropy(self, prior: Prior) -> Tensor:
        """Entropy of the scaled latent z∘s, ``h(Z) + Σ log s_i``, 0-dim, nats (Cho 2025, lemma of §3.2).

        Each s_i is floored at `SCALE_FLOOR`, so the result is finite for every ``v``.
        """
        return self.scale().clamp_min(SCALE_FLOOR).log().sum() + prior.entropy(self.variance.numel())

    @torch.no_grad()
    def effective_dimensions(self) -> Tensor:
        """Participation ratio ``(Σ v)² / Σ v²``, 0-dim: d_z for equal elements, 1 when one holds everything."""
        # Divided by the largest first: squares of tiny variances would underflow.
        share = self.variance / self.variance.max().clamp_min(torch.finfo(self.variance.dtype).tiny)
        return share.sum().square() / share.square().sum()
