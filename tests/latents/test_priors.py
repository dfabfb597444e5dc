"""Prior laws: their functions agree with each other and with the law's moments."""

import math

import pytest
import torch

from latentscale.errors import UserError
from latentscale.latents.draws import Purpose, uniforms
from latentscale.latents.priors import (
    PRIORS,
    Custom,
    HalfUniformHalfNormal,
    Normal,
    Prior,
    Uniform,
    UnitUniform,
    make_prior,
    require_standard,
)

LAWS = [Normal(), Uniform(), UnitUniform(), HalfUniformHalfNormal()]


@pytest.mark.slow
@pytest.mark.parametrize("prior", LAWS)
def test_cdf_undoes_the_quantile(prior: Prior) -> None:
    u = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    z = prior.quantile(u)
    assert z.dtype == torch.float64
    torch.testing.assert_close(prior.cdf(z), u, rtol=0, atol=1e-12)


@pytest.mark.parametrize("prior", LAWS)
def test_density_integrates_to_one_with_the_stated_moments_and_entropy(prior: Prior) -> None:
    low, high = (max(prior.support[0], -12.0), min(prior.support[1], 12.0))
    # Midpoints: no node on the edge of a support.
    count = 208_000  # 0 is on the edge of a cell of [-1, 12] too
    step = (high - low) / count
    z = low + (torch.arange(count, dtype=torch.float64) + 0.5) * step
    log_density = prior.log_density(z)
    density = log_density.exp()
    assert float(density.sum() * step) == pytest.approx(1.0, abs=1e-9)
    assert float((density * z).sum() * step) == pytest.approx(prior.mean, abs=1e-9)
    assert float((density * (z - prior.mean) ** 2).sum() * step) == pytest.approx(prior.variance, abs=1e-8)
    entropy = -float((density * log_density).sum() * step)
    assert prior.entropy(1) == pytest.approx(entropy, abs=1e-8)
    assert prior.entropy(5) == pytest.approx(5 * entropy, abs=1e-7)


def test_values_by_hand() -> None:
    assert Normal().entropy(2) == pytest.approx(2.8378770664093453)  # log(2πe)
    assert Uniform().entropy(1) == pytest.approx(math.log(2 * math.sqrt(3)))
    half = torch.tensor([0.25, 0.5], dtype=torch.float64)
    assert Normal().quantile(half).tolist() == pytest.approx([-0.6744897501960817, 0.0])
    assert Uniform().quantile(half).tolist() == pytest.approx([-math.sqrt(3) / 2, 0.0])
    assert Uniform(1.0).log_density(torch.tensor([0.5, 1.5])).tolist() == [
        pytest.approx(-math.log(2)),
        -math.inf,
    ]
    assert (Normal().is_standard, Uniform().is_standard, Uniform(1.0).is_standard) == (True, True, False)
    assert Uniform(1.0).variance == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", PRIORS)
def test_samples_follow_the_law(name: str) -> None:
    prior = make_prior(name)
    count = 20_000
    z = prior.sample(torch.from_numpy(uniforms(3, Purpose.EVALUATION, 0, 0, count))).sort().values
    # Kolmogorov-Smirnov against the law's closed form; 1.95/√n is p = 0.001.
    closed = {
        "normal": lambda t: 0.5 * (1 + torch.erf(t / math.sqrt(2))),
        "uniform": lambda t: (t / math.sqrt(3) + 1) / 2,
        "unit_uniform": lambda t: (t + 1) / 2,
        "half_uniform_half_normal": lambda t: torch.where(t < 0, (t + 1) / 2, 0.5 * (1 + torch.erf(t / math.sqrt(2)))),
    }[name](z)
    steps = torch.arange(1, count + 1, dtype=torch.float64) / count
    distance = max(float((steps - closed).max()), float((closed - steps + 1 / count).max()))
    assert distance < 1.95 / math.sqrt(count)
    assert float(z.mean()) == pytest.approx(prior.mean, abs=4 * math.sqrt(prior.variance / count))
    assert float(z.var()) == pytest.approx(prior.variance, rel=0.05)


def test_an_unknown_law_is_refused() -> None:
    with pytest.raises(UserError, match=r"latent\.law=cauchy.*normal, uniform"):
        make_prior("cauchy")


def laplace_quantile(u: torch.Tensor) -> torch.Tensor:
    """Laplace of variance 1: b = 1/√2."""
    tail = -(torch.minimum(u, 1 - u) * 2).log() / math.sqrt(2)
    return torch.where(u < 0.5, -tail, tail)


def squared(u: torch.Tensor) -> torch.Tensor:
    return u**2


def cauchy(u: torch.Tensor) -> torch.Tensor:
    return torch.tan(math.pi * (u - 0.5))


def coin(u: torch.Tensor) -> torch.Tensor:
    return torch.where(u < 0.5, 0.0, 1.0).to(u.dtype)


def custom(function: str) -> Custom:
    return Custom(f"{__name__}:{function}")


def test_half_uniform_half_normal_by_hand() -> None:
    prior = HalfUniformHalfNormal()
    # ∫ x/2 over [-1, 0] = -1/4, ∫ xφ over x > 0 = 1/√2π; ∫ x²/2 = 1/6, ∫ x²φ = 1/2. R tables 21-23: .149 and .642.
    assert prior.mean == pytest.approx(0.1489422804014327)
    assert prior.variance == pytest.approx(2 / 3 - 0.1489422804014327**2)
    assert (round(prior.mean, 3), round(prior.variance, 2)) == (0.149, 0.64)
    u = torch.tensor([0.1, 0.25, 0.5, 0.75], dtype=torch.float64)
    assert prior.quantile(u).tolist() == pytest.approx([-0.8, -0.5, 0.0, 0.6744897501960817], abs=1e-15)
    z = torch.tensor([-1.5, -0.5, 1.0], dtype=torch.float64)
    assert prior.cdf(z).tolist() == pytest.approx([0.0, 0.25, 0.8413447460685429])
    assert prior.log_density(z).exp().tolist() == pytest.approx([0.0, 0.5, math.exp(-0.5) / math.sqrt(2 * math.pi)])
    assert not prior.is_standard


def test_a_law_of_the_users_own_against_its_closed_forms() -> None:
    laplace = custom("laplace_quantile")
    assert laplace.mean == pytest.approx(0, abs=1e-9)
    assert laplace.variance == pytest.approx(1, abs=1e-5)
    assert laplace.is_standard
    assert laplace.entropy(3) == pytest.approx(3 * (1 + math.log(2 / math.sqrt(2))), abs=1e-5)  # 1 + log 2b
    z = torch.tensor([-2.0, -0.3, 0.7, 3.0], dtype=torch.float64)
    expected = torch.where(z < 0, 0.5 * (math.sqrt(2) * z).exp(), 1 - 0.5 * (-math.sqrt(2) * z).exp())
    torch.testing.assert_close(laplace.cdf(z), expected, rtol=0, atol=1e-12)
    density = -math.sqrt(2) * z.abs() - math.log(math.sqrt(2))
    torch.testing.assert_close(laplace.log_density(z), density, rtol=0, atol=1e-5)
    assert laplace.support == (-math.inf, math.inf)

    square = custom("squared")  # of a U(0, 1): E = 1/3, E u⁴ = 1/5, density 1/(2√z) on [0, 1]
    assert square.mean == pytest.approx(1 / 3, abs=1e-8)
    assert square.variance == pytest.approx(1 / 5 - 1 / 9, abs=1e-8)
    assert square.entropy(1) == pytest.approx(math.log(2) - 1, abs=1e-6)  # ∫ log 2u
    assert square.support == (0.0, 1.0)
    assert not square.is_standard
    seen = square.log_density(torch.tensor([-0.1, 0.25, 1.5], dtype=torch.float64))
    assert seen.tolist() == [-math.inf, pytest.approx(0.0, abs=1e-6), -math.inf]


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("", "package.module:function"),
        ("numpy", "package.module:function"),
        ("no_such_module:f", "no_such_module"),
        (f"{__name__}:no_such", "no_such"),
        (f"{__name__}:LAWS", "must be a function, got "),
        (f"{__name__}:cauchy", "no finite variance"),
        (f"{__name__}:coin", "strictly increasing"),
        ("math:exp", "failed"),
    ],
)
def test_what_is_no_quantile_function_is_refused(source: str, part: str) -> None:
    with pytest.raises(UserError, match=r"latent\.quantile") as refusal:
        make_prior("custom", source)
    assert part in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_quantile_function_without_its_law_is_refused() -> None:
    with pytest.raises(UserError, match=r"latent\.law=custom"):
        make_prior("normal", "math:exp")


def test_a_law_that_is_not_standard_is_refused_where_it_must_be() -> None:
    require_standard(Normal(), "this")
    require_standard(Uniform(), "this")
    require_standard(custom("laplace_quantile"), "this")
    for prior in (UnitUniform(), HalfUniformHalfNormal(), custom("squared")):
        with pytest.raises(UserError, match=rf"latent\.law={prior.name} has mean .* this needs 0 and 1"):
            require_standard(prior, "this")
