"""The encoder losses by hand."""

import math

import pytest
import torch

from latentscale.losses.inversion import feature_mse, latent_mse, latent_nll, scaled_latent_mse

Z = torch.tensor([[1.0, -2.0], [0.5, 0.0]]).double()
E = torch.tensor([[0.0, -1.0], [0.5, 2.0]]).double()


def test_latent_mse() -> None:
    # Squares 1, 1, 0, 4 over 2 samples of 2 dimensions.
    assert latent_mse(Z, E).item() == pytest.approx(6 / 4)


def test_scaled_latent_mse() -> None:
    # The squares are weighted by s² = 1.5 and 0.5.
    scale = torch.tensor([math.sqrt(1.5), math.sqrt(0.5)]).double()
    assert scaled_latent_mse(Z, E, scale).item() == pytest.approx((1.5 + 0.5 + 0.0 + 0.5 * 4) / 4)


def test_latent_nll() -> None:
    log_variance = torch.tensor([[0.0, math.log(2)], [math.log(4), 0.0]]).double()
    expected = (0 + 1 + math.log(2) + 1 / 2 + math.log(4) + 0 + 0 + 4) / 4
    assert latent_nll(Z, E, log_variance).item() == pytest.approx(expected, rel=1e-6)


def test_latent_nll_is_minimised_by_the_true_variance_and_bounded_by_its_floor() -> None:
    squared = 4.0
    log_variance = torch.tensor([[math.log(squared)]], dtype=torch.float64, requires_grad=True)
    loss = latent_nll(torch.tensor([[2.0]]).double(), torch.zeros(1, 1).double(), log_variance)
    (slope,) = torch.autograd.grad(loss, log_variance)
    assert slope.item() == pytest.approx(0.0, abs=1e-6)
    # e^lv = 0: what remains under the square is 1e-7.
    sure = latent_nll(torch.ones(1, 1).double(), torch.zeros(1, 1).double(), torch.full((1, 1), -800.0).double())
    assert sure.item() == pytest.approx(-800.0 + 1e7)


def test_feature_mse() -> None:
    assert feature_mse(Z, E).item() == pytest.approx(6 / 4)


def test_half_precision_is_widened_before_the_mean() -> None:
    real = torch.zeros(1, 1000, dtype=torch.bfloat16)
    fake = torch.ones(1, 1000, dtype=torch.bfloat16)
    fake[0, 0] = 2.0
    for loss in (feature_mse(real, fake), latent_mse(real, fake), scaled_latent_mse(real, fake, torch.ones(1000))):
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(1.003)
