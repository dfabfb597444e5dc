"""Adversarial losses per adversarial value.

Non-saturating: Cho 2025, eq. 49-50; least squares: Cho 2020; relativistic: Huang et al. 2024.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AdversarialLoss:
    """What the two players minimise, before any mean is taken.

    Attributes:
        discriminator: (a_r, a_f), adversarial values of reals and fakes of one shape -> losses of that shape.
        generator: (a_r, a_f) -> losses of the same shape; a_r is None unless the loss is paired.
        paired: whether the generator's loss too compares each fake with the real of its index, so that the generator's
            phase needs D's values of the reals.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Any, Tensor], Tensor]
    paired: bool = False


ADVERSARIAL: dict[str, AdversarialLoss] = {
    "nonsaturating": AdversarialLoss(
        discriminator=lambda real, fake: F.softplus(-real) + F.softplus(fake),
        generator=lambda real, fake: F.softplus(-fake),
    ),
    "least_squares": AdversarialLoss(
        discriminator=lambda real, fake: (real - 1.0).square() + fake.square(),
        generator=lambda real, fake: (fake - 1.0).square(),
    ),
    "hinge": AdversarialLoss(
        discriminator=lambda real, fake: F.relu(1.0 - real) + F.relu(1.0 + fake),
        generator=lambda real, fake: -fake,
    ),
    "wasserstein": AdversarialLoss(
        discriminator=lambda real, fake: fake - real,
        generator=lambda real, fake: -fake,
    ),
    "relativistic": AdversarialLoss(
        discriminator=lambda real, fake: F.softplus(-(real - fake)),
        generator=lambda real, fake: F.softplus(-(fake - real)),
        paired=True,
    ),
}
