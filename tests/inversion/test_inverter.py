"""The two maps of a trained model, in batches, and the OOD score."""

from pathlib import Path

import pytest
import torch

from latentscale.errors import UserError
from latentscale.inversion.inverter import Inverter
from tiny_models import DIM, exact_model, tiny_model

GENERATOR = torch.Generator().manual_seed(5)
IMAGES = torch.rand(7, 1, 8, 8, generator=GENERATOR) * 2 - 1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    tiny_model().save(folder / "model")
    return folder


def test_batches_do_not_change_results(run: Path) -> None:
    one, few = Inverter.load(run, "cpu", batch_images=100), Inverter.load(run / "model", "cpu", batch_images=3)
    latents = one.encode(IMAGES)
    assert latents.shape == (7, DIM)
    torch.testing.assert_close(few.encode(IMAGES), latents)
    torch.testing.assert_close(few.decode(latents), one.decode(latents))
    torch.testing.assert_close(few.ood_score(IMAGES), one.ood_score(IMAGES), rtol=1e-5, atol=1e-5)


def test_latents_are_unscaled_by_default(run: Path) -> None:
    inverter = Inverter.load(run, "cpu")
    latents = inverter.encode(IMAGES)
    assert torch.equal(latents, inverter.model.method.networks["discriminator"](IMAGES).latent)
    images = inverter.decode(latents)
    assert torch.equal(images, inverter.decode(latents * inverter.scale, already_scaled=True))
    assert not torch.allclose(images, inverter.decode(latents, already_scaled=True))
    assert torch.equal(images, inverter.reconstruct(IMAGES))
    assert images.abs().max() <= 1
    assert not images.requires_grad


def test_an_exact_model_reconstructs_exactly_and_clips() -> None:
    variance = torch.tensor([0.5, 1.0, 0.1, 0.4], dtype=torch.float64)
    inverter = Inverter(exact_model((1, 2, 2), variance, torch.zeros(4, dtype=torch.float64)))
    images = torch.tensor([[[[0.3, -1.0], [1.0, 0.0]]]], dtype=torch.float64)
    torch.testing.assert_close(inverter.reconstruct(images), images, rtol=0, atol=1e-15)
    # s = √(4v/2): the first element has s = 1, so only there z = 3 leaves [-1, 1]
    image = inverter.decode(torch.tensor([[3.0, 0.1, 0.0, 0.0]], dtype=torch.float64))
    expected = torch.tensor([1.0, 0.1 * 2**0.5, 0.0, 0.0], dtype=torch.float64).reshape(1, 1, 2, 2)
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-15)


def test_fewer_generated_images_are_the_first_of_more(run: Path) -> None:
    inverter = Inverter.load(run, "cpu", batch_images=4)
    images, latents, _ = inverter.generate(6, seed=11)
    fewer = inverter.generate(2, seed=11)
    assert torch.equal(fewer.latents, latents[:2])
    torch.testing.assert_close(fewer.images, images[:2])
    assert not torch.equal(inverter.generate(2, seed=12).latents, fewer.latents)


def test_ood_scores_use_the_unscaled_prediction(run: Path) -> None:
    inverter = Inverter.load(run, "cpu")
    latents, variance = inverter.encode(IMAGES).double(), inverter.variance.double()
    expected = (0.5 * (2 * torch.pi * variance).log() + latents.square() / (2 * variance)).sum(1)
    torch.testing.assert_close(inverter.ood_score(IMAGES), expected)


def test_models_of_points_are_inverted_without_a_range(tmp_path: Path) -> None:
    tiny_model((2,)).save(tmp_path)
    inverter = Inverter.load(tmp_path, "cpu")
    points = torch.tensor([[-3.0, 40.0], [0.0, 1.0]])
    assert inverter.encode(points).shape == (2, DIM)
    with pytest.raises(UserError, match="type uint8: give float"):
        inverter.encode(points.byte())


def test_a_diverged_model_is_reported() -> None:
    model = tiny_model()
    next(model.method.networks["discriminator"].parameters()).fill_(torch.nan)
    with pytest.raises(UserError, match="trained for 1200 steps, returned NaN"):
        Inverter(model).reconstruct(IMAGES)


def test_float64_models_stay_float64(tmp_path: Path) -> None:
    tiny_model(dtype=torch.float64).save(tmp_path)
    inverter = Inverter.load(tmp_path, "cpu")
    assert inverter.encode(IMAGES).dtype == torch.float64
    assert inverter.generate(1, 0).images.dtype == torch.float64


def test_invalid_calls_are_refused(run: Path, tmp_path: Path) -> None:
    inverter = Inverter.load(run, "cpu")
    with pytest.raises(UserError, match=rf"shape \[2, 9\], but the model takes \[n, {DIM}\]"):
        inverter.decode(torch.zeros(2, 9))
    with pytest.raises(UserError, match="NaN"):
        inverter.decode(torch.full((1, DIM), torch.nan))
    with pytest.raises(UserError, match="batch_images must be >= 1, got 0"):
        Inverter.load(run, "cpu", batch_images=0)
    with pytest.raises(UserError, match="device nonsense"):
        Inverter.load(run, "nonsense")
    tiny_model(encoder=False).save(tmp_path)
    vanilla = Inverter.load(tmp_path, "cpu")
    assert vanilla.generate(1, 0).images.shape == (1, 1, 8, 8)
    for call in (vanilla.encode, vanilla.reconstruct, vanilla.ood_score):
        with pytest.raises(UserError, match="vanilla has no encoder"):
            call(IMAGES)
