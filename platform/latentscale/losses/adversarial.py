"""Adversarial losses per adversarial value (T eq. 49-50; R for least squares)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AdversarialLoss:
    """What the two players minimise, before any mean is taken.

    Attributes:
        discriminator: (real, fake) adversarial values of one shape -> losses of that shape.
        generator: fake adversarial values -> losses of their shape.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


ADVERSARIAL: dict[str, AdversarialLoss] = {
    "nonsaturating": AdversarialLoss(
        discriminator=lambda real, fake: F.softplus(-real) + F.softplus(fake),
        generator=lambda fake: F.softplus(-fake),
    ),
    "least_squares": AdversarialLoss(
        discriminator=lambda real, fake: (real - 1.0).square() + fake.square(),
        generator=lambda fake: (fake - 1.0).square(),
    ),
    "hinge": AdversarialLoss(
        discriminator=lambda real, fake: F.relu(1.0 - real) + F.relu(1.0 + fake),
        generator=lambda fake: -fake,
    ),
    "wasserstein": AdversarialLoss(
        discriminator=lambda real, fake: fake - real,
        generator=lambda fake: -fake,
    ),
}
