"""AnoDLSGAN's score against values worked out by hand and SciPy's densities."""

import math

import pytest
import torch
from scipy import stats

from latentscale.inversion.ood_scores import VARIANCE_FLOOR, latent_negative_log_likelihood
from latentscale.latents.priors import LAWS, HalfUniformHalfNormal, Normal, Uniform, make_prior


def test_the_published_example_ranks_a_above_b_by_036_nats() -> None:
    # Σ E²/2v: a .005 + .04 + .45 = .495, b .045 + .04 + .05 = .135; the other terms are equal
    latents = torch.tensor([[0.1, -0.2, 0.3], [-0.3, 0.2, -0.1]], dtype=torch.float64)
    variance = torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)
    a, b = latent_negative_log_likelihood(latents, variance, Normal())
    assert (a - b).item() == pytest.approx(0.36, abs=1e-12)
    assert a.item() == pytest.approx(0.495 + 0.5 * math.log((2 * math.pi) ** 3 * 0.05), abs=1e-12)


def test_normal_scores_are_the_density_with_variance_v() -> None:
    latents = torch.linspace(-3, 3, 20, dtype=torch.float64).reshape(4, 5)
    variance = torch.tensor([1.3, 0.4, 0.02, 1e-3, 2.0], dtype=torch.float64)
    expected = -stats.norm(0, variance.sqrt().numpy()).logpdf(latents.numpy()).sum(1)
    torch.testing.assert_close(
        latent_negative_log_likelihood(latents, variance, Normal()), torch.from_numpy(expected), rtol=1e-12, atol=0
    )


def test_uniform_scores_are_exact_inside_and_finite_outside() -> None:
    variance = torch.tensor([1.0, 1 / 3], dtype=torch.float64)  # half-widths √3 and 1
    inside = torch.tensor([[1.7, -0.99]], dtype=torch.float64)
    expected = -stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)).logpdf(1.7) - stats.uniform(-1, 2).logpdf(-0.99)
    score = latent_negative_log_likelihood(inside, variance, Uniform())
    assert score.item() == pytest.approx(expected, abs=1e-12)
    # the second element lies 1.5 half-widths outside the support
    outside = torch.tensor([[1.7, -2.5]], dtype=torch.float64)
    assert latent_negative_log_likelihood(outside, variance, Uniform()).item() == pytest.approx(
        expected + 1.5, abs=1e-12
    )


def test_priors_of_another_mean_and_variance_are_shifted_and_stretched() -> None:
    prior = HalfUniformHalfNormal()
    variance = torch.tensor([0.5], dtype=torch.float64)
    stretch = math.sqrt(prior.variance / 0.5)

    def score(latent: float) -> float:
        return latent_negative_log_likelihood(torch.tensor([[latent]], dtype=torch.float64), variance, prior).item()

    # the density of (Z − mean)·√v/σ, for Z of density ½ on [−1, 0] and normal above
    at = 0.4
    z = prior.mean + at * stretch
    assert z > 0
    assert score(at) == pytest.approx(-stats.norm.logpdf(z) - math.log(stretch), abs=1e-12)
    edge = (-1 - prior.mean) / stretch
    assert score(edge + 1e-9) == pytest.approx(math.log(2) - math.log(stretch), abs=1e-8)
    # two standard deviations outside a support that is a half-line
    beyond = edge - 2 * math.sqrt(prior.variance) / stretch
    assert score(beyond) == pytest.approx(math.log(2) - math.log(stretch) + 2, abs=1e-12)


def test_every_law_gives_finite_scores_that_integrate_to_a_density() -> None:
    grid = torch.linspace(-9, 9, 200_001, dtype=torch.float64)[:, None]
    variance = torch.tensor([0.7], dtype=torch.float64)
    for name in LAWS:
        prior = make_prior(name, "test_ood_scores:triangle" if name == "custom" else "")
        scores = latent_negative_log_likelihood(grid, variance, prior)
        assert torch.isfinite(scores).all(), name
        low, high = prior.support
        z = prior.mean + grid[:, 0] * math.sqrt(prior.variance / 0.7)
        inside = (z > low) & (z < high)
        density = torch.where(inside, (-scores).exp(), torch.zeros(()).double())
        step = 18 / 200_000
        assert float(density.sum() * step) == pytest.approx(1.0, abs=2e-4), name
        assert float((density * grid[:, 0]).sum() * step) == pytest.approx(0.0, abs=2e-4), name
        assert float((density * grid[:, 0] ** 2).sum() * step) == pytest.approx(0.7, abs=1e-3), name


def triangle(u: torch.Tensor) -> torch.Tensor:
    """Density 2(1 − z) on [0, 1]."""
    return 1 - (1 - u).sqrt()


def test_the_variance_has_a_lower_bound() -> None:
    latents = torch.tensor([[0.5, 1e-5], [0.5, -2e-5]], dtype=torch.float64)
    score = latent_negative_log_likelihood(latents, torch.tensor([1.0, 0.0]), Normal())
    assert torch.isfinite(score).all()
    # with v at the lower bound f, the scores differ by (4e-10 - 1e-10) / 2f
    assert (score[1] - score[0]).item() == pytest.approx(3e-10 / (2 * VARIANCE_FLOOR), rel=1e-6)
