"""The figures of inversion on models whose numbers can be worked out by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d

from latentscale.errors import UserError
from latentscale.evaluation.evaluate import evaluate
from latentscale.evaluation.explain import explain
from latentscale.evaluation.metrics.psnr import PSNR_CEILING_DB
from latentscale.methods.msegan import MSEGAN
from tiny_models import DIM, exact_model, tiny_model

VARIANCE = torch.tensor([0.5, 1.0, 0.1, 0.4], dtype=torch.float64)  # s² = 1, 2, .2, .8
ERROR = torch.tensor([0.1, -0.2, 0.3, 0.0], dtype=torch.float64)
REALS = torch.tensor([[0.2, 0.4, -0.6, 0.0], [-0.2, 0.0, -0.4, 0.2]], dtype=torch.float64).reshape(2, 1, 2, 2)


def test_every_number_by_hand() -> None:
    report = evaluate(exact_model((1, 2, 2), VARIANCE, ERROR), REALS, seed=0, fresh_draws=10)
    # Of the latent: avg((error∘s)²) = (.01·1 + .04·2 + .09·.2 + 0) / 4 for every draw.
    assert report["latent_error_mean"] == pytest.approx(0.027, abs=1e-12)
    assert report["latent_error_median"] == pytest.approx(0.027, abs=1e-12)
    # Of an image: the same, because G(E(x)∘s) = x + error∘s and nothing is clipped.
    assert report["psnr_db"] == pytest.approx(10 * math.log10(4 / 0.027), abs=1e-9)
    assert report["psnr_per_image_db"] == report["psnr_db"]
    # Each real lies .2, .2, .1, .1 from their mean: squares .04 .04 .01 .01.
    assert report["mean_image_psnr_db"] == pytest.approx(10 * math.log10(4 / 0.025), abs=1e-9)
    assert report["gain_db"] == pytest.approx(10 * math.log10(0.025 / 0.027), abs=1e-9)
    # (Σv)² / Σv² = 4 / 1.42.
    assert report["effective_dimensions"] == pytest.approx(4 / 1.42, rel=1e-9)
    entropy = 2 * math.log(2 * math.pi * math.e) + 0.5 * math.log(1 * 2 * 0.2 * 0.8)
    assert report["latent_entropy_nats"] == pytest.approx(entropy, rel=1e-9)
    assert (report["ssim"], report["real_images"], report["fresh_draws"]) == (None, 2, 10)


def test_the_mean_and_the_median_of_latent_errors_differ_as_they_should() -> None:
    # G doubles, so E(G(z∘s)) = 2z: the error of a draw is avg((z∘s)²), of mean avg(s²) = 1 over the prior.
    model = exact_model((1, 2, 2), VARIANCE, torch.zeros(4, dtype=torch.float64), factor=2.0)
    report = evaluate(model, REALS, seed=3, fresh_draws=20000, batch_images=7000)
    # Its variance is Σ s⁴ · 2 / 16 = .71, so three standard errors over 20,000 draws are .018.
    assert report["latent_error_mean"] == pytest.approx(1.0, abs=0.018)
    draws = (np.random.default_rng(0).normal(size=(200_000, 4)) ** 2 * [1, 2, 0.2, 0.8]).mean(1)
    assert report["latent_error_median"] == pytest.approx(np.median(draws), abs=0.02)


def test_reconstructions_are_clipped_before_they_are_compared() -> None:
    error = torch.full((4,), 1.0, dtype=torch.float64)
    model = exact_model((1, 2, 2), torch.ones(4, dtype=torch.float64), error)
    reals = torch.stack([torch.full((1, 2, 2), 1.0), torch.full((1, 2, 2), 0.5)]).double()
    report = evaluate(model, reals, seed=0, fresh_draws=4)
    # The first becomes 2, clipped to 1: exact. The second 1.5, clipped to 1: .25 off.
    assert report["psnr_db"] == pytest.approx(10 * math.log10(4 / 0.125), abs=1e-9)
    expected = (PSNR_CEILING_DB + 10 * math.log10(4 / 0.25)) / 2
    assert report["psnr_per_image_db"] == pytest.approx(expected, abs=1e-9)


def test_bytes_floats_and_batches_agree() -> None:
    model = tiny_model()
    pixels = torch.randint(0, 256, (9, 1, 8, 8), generator=torch.Generator().manual_seed(2)).byte()
    report = evaluate(model, pixels, seed=1, fresh_draws=20, batch_images=4)
    again = evaluate(model, pixels.float() / 127.5 - 1, seed=1, fresh_draws=20)
    assert report.keys() == again.keys()
    for name, number in report.items():
        assert again[name] == (None if number is None else pytest.approx(number, rel=1e-5)), name
    assert again["latent_error_mean"] != evaluate(model, pixels, 2, 20)["latent_error_mean"]


def ssim_by_hand(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004 over every place where the 11×11 Gaussian window fits, range 2."""
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def smooth(values: np.ndarray) -> np.ndarray:
        return convolve2d(values, window, mode="valid")

    mean_x, mean_y = smooth(x), smooth(y)
    variance_x, variance_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((similarity / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).mean())


def test_ssim_is_wangs() -> None:
    generator = torch.Generator().manual_seed(4)
    error = torch.randn(256, generator=generator, dtype=torch.float64) * 0.2
    model = exact_model((1, 16, 16), torch.ones(256, dtype=torch.float64), error)
    reals = torch.rand(3, 1, 16, 16, generator=generator, dtype=torch.float64) - 0.5
    expected = [ssim_by_hand(x[0].numpy(), (x[0] + error.reshape(16, 16)).clamp(-1, 1).numpy()) for x in reals]
    report = evaluate(model, reals, seed=0, fresh_draws=2, batch_images=2)
    assert report["ssim"] == pytest.approx(np.mean(expected), abs=1e-4)


def test_a_method_without_encoder_gets_what_it_can() -> None:
    model = tiny_model(encoder=False)
    report = evaluate(model, torch.rand(3, 1, 8, 8) * 2 - 1, seed=0)
    assert report["latent_error_mean"] is None
    assert report["psnr_db"] is None
    assert report["mean_image_psnr_db"] is not None
    assert [line.split()[0] for line in explain(report)] == ["mean"]


def test_a_diverged_model_is_reported_and_not_hidden() -> None:
    model = tiny_model()
    next(model.method.networks["discriminator"].parameters()).fill_(torch.nan)
    report = evaluate(model, torch.rand(3, 1, 8, 8) * 2 - 1, seed=0, fresh_draws=4)
    assert math.isnan(report["psnr_db"])
    text = "\n".join(explain(report))
    assert "psnr_db" in text
    assert "diverged" in text


def test_a_fixed_scale_has_the_priors_entropy() -> None:
    model = tiny_model(method=MSEGAN)
    report = evaluate(model, torch.rand(3, 1, 8, 8) * 2 - 1, seed=0, fresh_draws=4)
    assert report["latent_entropy_nats"] == pytest.approx(DIM / 2 * math.log(2 * math.pi * math.e))


def test_the_explanation_names_every_number_that_was_measured() -> None:
    report = evaluate(exact_model((1, 2, 2), VARIANCE, ERROR), REALS, seed=0, fresh_draws=10)
    text = "\n".join(explain(report))
    for number in (
        "0.027",
        "21.71 dB",
        "22.04 dB",
        "-0.33 dB",
        "2.8 of 4",
        "ssim not measured: it needs images of at least 11x11 pixels",
    ):
        assert number in text
    assert "does not carry the image yet" in text


def test_reference_images_that_do_not_fit_are_refused() -> None:
    model = tiny_model()
    with pytest.raises(UserError, match=r"\[3, 1, 9, 9\]"):
        evaluate(model, torch.zeros(3, 1, 9, 9), seed=0)
    with pytest.raises(UserError, match="n >= 2"):
        evaluate(model, torch.zeros(1, 1, 8, 8), seed=0)


def test_points_have_a_latent_error_but_no_pixels() -> None:
    report = evaluate(tiny_model((2,)), torch.zeros(3, 2), seed=0, fresh_draws=4)
    assert report["latent_error_median"] > 0
    assert [report[key] for key in ("psnr_db", "mean_image_psnr_db", "gain_db", "ssim")] == [None] * 4
