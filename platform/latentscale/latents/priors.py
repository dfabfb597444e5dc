"""Laws of one latent element; a latent is a vector of independent elements of one law."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from latentscale.errors import UserError


class Prior(ABC):
    """A one-dimensional law given by its quantile function.

    All methods work elementwise on tensors of any shape, in the tensor's own precision and on its device.

    Attributes:
        name: the configuration's name of the law.
        mean, variance: of one element.
    """

    name: str
    mean: float = 0.0
    variance: float = 1.0

    @property
    def is_standard(self) -> bool:
        """Whether an element has mean 0 and variance 1, as the dynamic latent scale requires."""
        return abs(self.mean) < 1e-12 and abs(self.variance - 1.0) < 1e-12

    @property
    @abstractmethod
    def support(self) -> tuple[float, float]:
        """The ends of the interval outside which the density is 0."""

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """The value below which a share ``u`` of the law lies; ``u`` inside (0, 1)."""

    @abstractmethod
    def cdf(self, z: Tensor) -> Tensor:
        """P(Z ≤ z)."""

    @abstractmethod
    def log_density(self, z: Tensor) -> Tensor:
        """Logarithm of the density in nats, −∞ outside the support."""

    @abstractmethod
    def entropy(self, dim: int) -> float:
        """Differential entropy in nats of a vector of ``dim`` independent elements."""

    def sample(self, uniforms: Tensor) -> Tensor:
        """Draws of this law from uniforms in (0, 1), by inversion: the same shape and precision."""
        return self.quantile(uniforms)


class Normal(Prior):
    """N(0, 1)."""

    name = "normal"

    @property
    def support(self) -> tuple[float, float]:
        """The whole line."""
        return -math.inf, math.inf

    def quantile(self, u: Tensor) -> Tensor:
        """Φ⁻¹(u)."""
        return torch.special.ndtri(u)

    def cdf(self, z: Tensor) -> Tensor:
        """Φ(z)."""
        return torch.special.ndtr(z)

    def log_density(self, z: Tensor) -> Tensor:
        """−z²/2 − ½ log 2π."""
        return -0.5 * z.square() - 0.5 * math.log(2.0 * math.pi)

    def entropy(self, dim: int) -> float:
        """d/2 · log(2πe)."""
        return 0.5 * dim * math.log(2.0 * math.pi * math.e)


class Uniform(Prior):
    """U(−h, h); without an argument h = √3, whose variance is 1.

    Args:
        half_width: h.
    """

    name = "uniform"

    def __init__(self, half_width: float = math.sqrt(3.0)) -> None:
        self.half_width = half_width
        self.variance = half_width**2 / 3.0

    @property
    def support(self) -> tuple[float, float]:
        """(−h, h)."""
        return -self.half_width, self.half_width

    def quantile(self, u: Tensor) -> Tensor:
        """(2u − 1) h."""
        return (2.0 * u - 1.0) * self.half_width

    def cdf(self, z: Tensor) -> Tensor:
        """(z/h + 1)/2, clamped to [0, 1]."""
        return ((z / self.half_width + 1.0) * 0.5).clamp(0.0, 1.0)

    def log_density(self, z: Tensor) -> Tensor:
        """−log 2h inside, −∞ outside."""
        inside = torch.full_like(z, -math.log(2.0 * self.half_width))
        return torch.where(z.abs() <= self.half_width, inside, torch.full_like(z, -math.inf))

    def entropy(self, dim: int) -> float:
        """d · log 2h."""
        return dim * math.log(2.0 * self.half_width)


PRIORS: dict[str, type[Prior]] = {Normal.name: Normal, Uniform.name: Uniform}


def make_prior(name: str) -> Prior:
    """The prior law called ``name`` in the configuration.

    Raises:
        UserError: naming `latent.law` and the known names.
    """
    if name not in PRIORS:
        raise UserError(f"latent.law={name} is not known: choose one of {', '.join(PRIORS)}")
    return PRIORS[name]()
