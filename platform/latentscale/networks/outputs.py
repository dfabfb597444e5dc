"""What every discriminator returns from its one forward pass, and which heads it is built with."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class Heads:
    """The heads a method trains; a head nobody trains must not exist (width 0).

    Attributes:
        adversarial: number of adversarial values.
        latent: width of the latent mean E(x), 0 for none.
        log_variance: width of the latent log-variance E_lv(x), 0 for none.
        classes: width of the class logits Q(x), all labels side by side, 0 for none.
    """

    adversarial: int = 1
    latent: int = 0
    log_variance: int = 0
    classes: int = 0


class Discrimination(NamedTuple):
    """One forward pass of a discriminator over ``b`` samples.

    Attributes:
        adversarial: ``[b, heads.adversarial]`` adversarial values, no squashing.
        latent: ``[b, d_z]`` predicted latent mean E(x), or None without that head.
        log_variance: ``[b, d_z]`` predicted log-variance, or None without that head.
        features: ``[b, F]`` F(x), the last feature map before the heads, flattened.
        classes: ``[b, Σ d_c]`` class logits, or None without that head.
    """

    adversarial: Tensor
    latent: Tensor | None
    log_variance: Tensor | None
    features: Tensor
    classes: Tensor | None = None
