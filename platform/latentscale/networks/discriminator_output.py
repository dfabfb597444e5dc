"""The output of a discriminator's single forward pass, and the heads that it is built with."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class Heads:
    """Widths of a discriminator's heads. A head that the method does not train must have width 0: it is not built.

    Attributes:
        adversarial: number of adversarial values per sample.
        latent: width of the latent mean E(x), 0 for none.
        log_variance: width of the latent log-variance E_lv(x), 0 for none.
        classes: width of the class logits Q(x) of all labels, concatenated; 0 for none.
    """

    adversarial: int = 1
    latent: int = 0
    log_variance: int = 0
    classes: int = 0


class DiscriminatorOutput(NamedTuple):
    """What a discriminator computes for ``b`` samples in one forward pass.

    Attributes:
        adversarial: ``[b, heads.adversarial]`` adversarial values, without an activation.
        latent: ``[b, d_z]`` predicted latent mean E(x), or None without that head.
        log_variance: ``[b, d_z]`` predicted log-variance, or None without that head.
        features: ``[b, F]`` F(x), the flattened features below the heads.
        classes: ``[b, Σ d_c]`` class logits, or None without that head.
    """

    adversarial: Tensor
    latent: Tensor | None
    log_variance: Tensor | None
    features: Tensor
    classes: Tensor | None = None
