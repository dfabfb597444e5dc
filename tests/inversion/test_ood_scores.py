"""AnoDLSGAN's score against hand-worked values and SciPy's densities."""

import math

import pytest
import torch
from scipy import stats

from latentscale.inversion.scores import VARIANCE_FLOOR, latent_negative_log_likelihood
from latentscale.latents.priors import Normal, Uniform


def test_the_published_example_ranks_a_above_b_by_036_nats() -> None:
    # Sum of E^2 / 2v: a .005 + .04 + .45 = .495, b .045 + .04 + .05 = .135; the rest is common to both.
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
    # The second element lies 1.5 half-widths beyond its edge.
    outside = torch.tensor([[1.7, -2.5]], dtype=torch.float64)
    assert latent_negative_log_likelihood(outside, variance, Uniform()).item() == pytest.approx(
        expected + 1.5, abs=1e-12
    )


def test_a_dead_dimension_is_floored() -> None:
    latents = torch.tensor([[0.5, 1e-5], [0.5, -2e-5]], dtype=torch.float64)
    score = latent_negative_log_likelihood(latents, torch.tensor([1.0, 0.0]), Normal())
    assert torch.isfinite(score).all()
    # With v at the floor f, the scores differ by (4e-10 - 1e-10) / 2f.
    assert (score[1] - score[0]).item() == pytest.approx(3e-10 / (2 * VARIANCE_FLOOR), rel=1e-6)
