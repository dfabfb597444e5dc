"""The command ``latentscale invert``, started as a user starts it."""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from latentscale.inversion.inverter import Inverter
from launching import Processes
from tiny_models import DIM, tiny_model

COMMAND = str(Path(sys.executable).with_name("latentscale"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its model, and a folder of real digits as PNG files."""
    folder = tmp_path_factory.mktemp("workspace")
    tiny_model().save(folder / "run" / "model")
    (folder / "digits").mkdir()
    for index, digit in enumerate(load_digits().images[:6]):
        Image.fromarray((digit * 255 / 16).round().astype(np.uint8)).save(folder / "digits" / f"{index}.png")
    Image.new("RGB", (20, 10), (200, 30, 90)).save(folder / "photo.jpg")
    (folder / "broken.png").write_text("not an image")
    return folder


def test_images_become_latents_and_a_picture(workspace: Path, processes: Processes) -> None:
    finished = processes.run(
        [COMMAND, "invert", "run", "digits", "photo.jpg", "--batch-images", "4", "--device", "cpu"], workspace
    )
    assert finished.code == 0, finished.err
    with np.load(workspace / "inverted" / "latents.npz", allow_pickle=False) as arrays:
        results = dict(arrays)
    assert results["names"].tolist() == [*(f"digits/{index}.png" for index in range(6)), "photo.jpg"]
    inverter = Inverter.load(workspace / "run", "cpu")
    pixels = np.stack([np.asarray(Image.open(workspace / "digits" / f"{index}.png")) for index in range(6)])[:, None]
    real = torch.from_numpy(pixels).float() / 127.5 - 1
    latents = inverter.encode(real)
    assert results["latents"].shape == (7, DIM)
    np.testing.assert_allclose(results["latents"][:6], latents.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(results["scaled_latents"], results["latents"] * results["scale"], rtol=1e-6)
    np.testing.assert_allclose(results["ood_score"][:6], inverter.ood_score(real).numpy(), rtol=1e-5)
    error = (inverter.decode(latents) - real).square().mean(dim=(1, 2, 3))
    np.testing.assert_allclose(results["psnr_db"][:6], 10 * np.log10(4 / error.numpy()), rtol=1e-5)
    with Image.open(workspace / "inverted" / "reconstructions.png") as picture:
        assert picture.width > 7 * 64
        assert picture.height > 2 * 64
    for index, score in enumerate(results["ood_score"]):
        assert f"{score:.2f}" in finished.out
        assert results["names"][index] in finished.out
    assert "inverted/latents.npz" in finished.out
    assert "inverted/reconstructions.png" in finished.out
    assert "note: photo.jpg: RGB converted to L, 20x10 centre-cropped to 10x10, 10x10 resized to 8x8" in finished.err

    # existing results are replaced only with --force
    again = processes.run([COMMAND, "invert", "run", "digits"], workspace)
    assert (again.code, again.out) == (2, "")
    assert again.err.startswith("error: inverted/latents.npz exists")
    assert again.err.count("\n") == 1
    replaced = processes.run([COMMAND, "invert", "run", "digits/3.png", "--force", "--device", "cpu"], workspace)
    assert replaced.code == 0, replaced.err
    with np.load(workspace / "inverted" / "latents.npz", allow_pickle=False) as arrays:
        assert arrays["names"].tolist() == ["digits/3.png"]
        np.testing.assert_allclose(arrays["latents"], latents[3:4].numpy(), rtol=1e-5, atol=1e-5)


def test_one_line_names_a_file_that_is_not_an_image(workspace: Path, processes: Processes) -> None:
    finished = processes.run([COMMAND, "invert", "run", "digits", "broken.png", "--out", "none"], workspace)
    assert finished.code == 2
    remedy = "convert it to PNG or JPEG, or leave it out with --on-error skip"
    assert finished.err == f"error: broken.png is not an image that Pillow can read: {remedy}\n"
    assert not (workspace / "none").exists()
    cut = (workspace / "photo.jpg").read_bytes()
    (workspace / "cut.jpg").write_bytes(cut[: len(cut) * 2 // 3])
    finished = processes.run([COMMAND, "invert", "run", "cut.jpg", "--out", "none"], workspace)
    assert finished.code == 2
    assert finished.err.startswith("error: cut.jpg cannot be read as an image")
    assert finished.err.endswith(", or leave it out with --on-error skip\n")


def test_results_are_not_written_to_a_url(workspace: Path, processes: Processes) -> None:
    finished = processes.run([COMMAND, "invert", "run", "digits", "--out", "gs://bucket/latents"], workspace)
    assert finished.code == 2
    assert finished.err.startswith("error: --out gs:/bucket/latents is a URL")
    assert not (workspace / "gs:").exists()


def test_help(workspace: Path, processes: Processes) -> None:
    finished = processes.run([COMMAND], workspace)
    assert "invert" in finished.out + finished.err
    helped = processes.run([COMMAND, "invert", "--help"], workspace)
    assert helped.code == 0
    assert "latentscale invert runs/pvdgan-afhq photo.jpg" in helped.out
    assert "ood_score" in helped.out


def test_version(workspace: Path, processes: Processes) -> None:
    assert processes.run([COMMAND, "--version"], workspace).out == f"latentscale {version('latentscale')}\n"
