"""Laws of one latent element; a latent is a vector of independent elements of one law."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor

from latentscale.errors import UserError
from latentscale.wording import shown


class Prior(ABC):
    """A one-dimensional law given by its quantile function.

    All methods work elementwise on tensors of any shape, in the tensor's own precision and on its device.

    Attributes:
        name: the configuration's name of the law.
        mean, variance: of one element.
        source: of a custom law, ``package.module:function``; else empty.
    """

    name: str
    mean: float = 0.0
    variance: float = 1.0
    source: str = ""

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


class UnitUniform(Uniform):
    """U(−1, 1), whose variance is 1/3 (Cho 2020, §4)."""

    name = "unit_uniform"

    def __init__(self) -> None:
        super().__init__(1.0)


class HalfUniformHalfNormal(Prior):
    """Density ½ on [−1, 0] and that of N(0, 1) above 0: every element follows this one law (Cho 2020, fig. 20)."""

    name = "half_uniform_half_normal"
    mean = 1.0 / math.sqrt(2.0 * math.pi) - 0.25
    variance = 2.0 / 3.0 - mean**2

    @property
    def support(self) -> tuple[float, float]:
        """(−1, ∞)."""
        return -1.0, math.inf

    def quantile(self, u: Tensor) -> Tensor:
        """2u − 1 below ½, Φ⁻¹(u) above."""
        return torch.where(u < 0.5, 2.0 * u - 1.0, torch.special.ndtri(u))

    def cdf(self, z: Tensor) -> Tensor:
        """(z + 1)/2 below 0, not less than 0; Φ(z) above."""
        return torch.where(z < 0, ((z + 1.0) * 0.5).clamp_min(0.0), torch.special.ndtr(z))

    def log_density(self, z: Tensor) -> Tensor:
        """−log 2 on [−1, 0], −z²/2 − ½ log 2π above, −∞ below."""
        uniform = torch.where(z >= -1.0, torch.full_like(z, -math.log(2.0)), torch.full_like(z, -math.inf))
        return torch.where(z <= 0, uniform, -0.5 * z.square() - 0.5 * math.log(2.0 * math.pi))

    def entropy(self, dim: int) -> float:
        """d · (½ log 2 + ¼ log(2πe)): half of each part's."""
        return dim * (0.5 * math.log(2.0) + 0.25 * math.log(2.0 * math.pi * math.e))


_NODES = 16_001
_REACH = 8.0
"""Quadrature over u = Φ(t): 16,001 values of t from −8 to 8, beyond which lies 1e-15 of any law."""

_LEAST_SLOPE_U = 1e-10
"""Closer to 0 or 1, the slope of a quantile function is taken at this u: beyond it, u has too few digits."""

_BISECTIONS = 60


class Custom(Prior):
    """A law with a density, given by its quantile function alone; all else is computed from that.

    Mean, variance and entropy are integrals over u by quadrature, the distribution function is found by bisection and
    the density is 1/Q'(u), by central differences.

    Args:
        source: ``package.module:function`` of a function that takes a float tensor of values in (0, 1) to a tensor of
            the same shape, type and device, strictly increasing.

    Raises:
        UserError: naming `latent.quantile`, if there is no such function, or if it is not a quantile function.
    """

    name = "custom"

    def __init__(self, source: str) -> None:
        self.source = source
        self.function = _imported(source)
        t = torch.linspace(-_REACH, _REACH, _NODES, dtype=torch.float64)
        u = torch.special.ndtr(t)
        values = self._checked(u)
        weights = torch.exp(-0.5 * t.square())
        weights /= weights.sum()
        self.mean = float((weights * values).sum())
        parts = weights * (values - self.mean).square()
        self.variance = float(parts.sum())
        if not float(parts[t.abs() > _REACH - 1].sum()) < 1e-3 * self.variance:
            raise UserError(f"latent.quantile={shown(source)} has no finite variance: choose a law with lighter tails")
        self._entropy = float((weights * self._slope(u.clamp(_LEAST_SLOPE_U, 1 - _LEAST_SLOPE_U)).log()).sum())

    @property
    def is_standard(self) -> bool:
        """Whether an element has mean 0 and variance 1, to the quadrature's precision."""
        return abs(self.mean) < 1e-5 and abs(self.variance - 1.0) < 1e-5

    @property
    def support(self) -> tuple[float, float]:
        """Q(0) and Q(1), infinite where the function has no value there."""
        low, high = self.quantile(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        return -math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high

    def quantile(self, u: Tensor) -> Tensor:
        """The user's function."""
        values: Tensor = self.function(u)
        return values

    def cdf(self, z: Tensor) -> Tensor:
        """The u with Q(u) = z; 0 or 1 outside the support."""
        low, high = torch.zeros_like(z), torch.ones_like(z)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            below = self.quantile(middle) < z
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return 0.5 * (low + high)

    def log_density(self, z: Tensor) -> Tensor:
        """−log Q'(cdf(z)), −∞ outside the support."""
        low, high = self.support
        # in float64: a float32 u has too few digits for a difference quotient
        u = self.cdf(z.double()).clamp(_LEAST_SLOPE_U, 1 - _LEAST_SLOPE_U)
        density = -self._slope(u).log()
        return torch.where((z >= low) & (z <= high), density, torch.full_like(density, -math.inf)).to(z.dtype)

    def entropy(self, dim: int) -> float:
        """d · ∫ log Q'(u) du."""
        return dim * self._entropy

    def _slope(self, u: Tensor) -> Tensor:
        step = 1e-5 * torch.minimum(u, 1.0 - u)
        above, below = u + step, u - step
        # what the rounded arguments really differ by
        return (self.quantile(above) - self.quantile(below)) / (above - below)

    def _checked(self, u: Tensor) -> Tensor:
        try:
            values = self.function(u)
        except Exception as error:
            raise UserError(f"latent.quantile={shown(self.source)} failed on a tensor in (0, 1): {error!r}") from error
        if not isinstance(values, Tensor) or values.shape != u.shape or values.dtype != u.dtype:
            raise UserError(
                f"latent.quantile={shown(self.source)} must return a tensor of its argument's shape and type"
            )
        # at the ends neighbouring u, or their values, round to the same number
        inner = values[(u > _LEAST_SLOPE_U) & (u < 1 - _LEAST_SLOPE_U)]
        if not bool(values.isfinite().all()) or not bool((inner.diff() > 0).all()):
            raise UserError(
                f"latent.quantile={shown(self.source)} must be finite and strictly increasing inside (0, 1)"
            )
        return values


def _imported(source: str) -> Callable[[Tensor], Tensor]:
    module, colon, function = source.partition(":")
    if not (module and colon and function):
        raise UserError(f"latent.quantile={shown(source)} must be package.module:function with latent.law=custom")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"latent.quantile={shown(source)}: {error}: put its folder on PYTHONPATH or fix the name"
        ) from error
    if not callable(found):
        raise UserError(f"latent.quantile={shown(source)} must be a function, got {type(found).__name__}")
    called: Callable[[Tensor], Tensor] = found
    return called


PRIORS: dict[str, type[Prior]] = {law.name: law for law in (Normal, Uniform, UnitUniform, HalfUniformHalfNormal)}
LAWS = (*PRIORS, Custom.name)


def make_prior(name: str, quantile: str = "") -> Prior:
    """The prior law called ``name`` in the configuration.

    Args:
        quantile: ``package.module:function`` of the law ``custom``, empty for all others.

    Raises:
        UserError: naming `latent.law` and the known names, or `latent.quantile`.
    """
    if name == Custom.name:
        return Custom(quantile)
    if name not in PRIORS:
        raise UserError(f"latent.law={name} is unknown: choose one of {', '.join(LAWS)}")
    if quantile:
        raise UserError(
            f"latent.quantile={shown(quantile)} is only used with latent.law=custom, not {name}: set latent.law=custom"
        )
    return PRIORS[name]()


def require_standard(prior: Prior, why: str) -> None:
    """Refuse a law without mean 0 and variance 1.

    Raises:
        UserError: naming `latent.law`.
    """
    if not prior.is_standard:
        raise UserError(
            f"latent.law={prior.name} has mean {prior.mean:.4g} and variance {prior.variance:.4g}: {why} needs 0 and 1,"
            " such as latent.law=normal or uniform"
        )
