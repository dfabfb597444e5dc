"""Snapshots are fixed draws of one model, named so that they sort."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentscale.latents.draws import Purpose
from latentscale.pictures import NON_FINITE_COLOUR, to_uint8
from latentscale.training.snapshots import write_snapshots
from tiny_models import exact_model, tiny_model

REALS = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def places(picture: np.ndarray, image: torch.Tensor) -> list[tuple[int, int]]:
    """Where an 8×8 image, magnified to 64×64, stands in a picture."""
    cell = to_uint8(image)[0].numpy().repeat(8, 0).repeat(8, 1)
    windows = np.lib.stride_tricks.sliding_window_view(picture[:, :, 0], cell.shape)
    candidates = np.argwhere((windows[:, :, 0, 0] == cell[0, 0]) & (windows[:, :, 63, 63] == cell[63, 63]))
    return [(int(top), int(left)) for top, left in candidates if (windows[top, left] == cell).all()]


@pytest.mark.slow
def test_the_same_model_gives_the_same_files(tmp_path: Path) -> None:
    model = tiny_model()
    paths = write_snapshots(model, REALS, 1000, 32000, tmp_path / "a", seed=7)
    assert [path.name for path in paths] == [
        "samples-000001000.png",
        "reconstructions-000001000.png",
        "fakes-000001000.png",
        "sweeps-000001000.png",
    ]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(path.name for path in paths)
    again = write_snapshots(model, REALS, 1000, 32000, tmp_path / "b", seed=7)
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    other = write_snapshots(model, REALS, 1000, 32000, tmp_path / "c", seed=8)
    assert paths[0].read_bytes() != other[0].read_bytes()


def test_reconstructions_stand_under_their_reals(tmp_path: Path) -> None:
    variance = torch.linspace(0.5, 1.5, 64, dtype=torch.float64)
    error = torch.full((64,), 0.2, dtype=torch.float64)
    model = exact_model((1, 8, 8), variance, error)
    path = write_snapshots(model, REALS, 1, 32, tmp_path, seed=0)[1]
    picture = np.asarray(Image.open(path))
    expected = (REALS.double() + (error * model.scale).reshape(8, 8)).clamp(-1, 1)
    for real, reconstructed in zip(REALS, expected, strict=True):
        ((top, left),) = places(picture, real)
        ((below, same_left),) = places(picture, reconstructed)
        assert left == same_left
        assert 64 <= below - top <= 70


def test_sweeps_run_along_the_largest_scales(tmp_path: Path) -> None:
    variance = torch.ones(64, dtype=torch.float64)
    variance[[9, 30]] = torch.tensor([1.3, 1.2], dtype=torch.float64)
    # G shrinks, so that nothing swept is clipped and every picture is another.
    model = exact_model((1, 8, 8), variance, torch.zeros(64, dtype=torch.float64), factor=0.4)
    path = write_snapshots(model, REALS, 1, 32, tmp_path, seed=0)[3]
    picture = np.asarray(Image.open(path))
    base = model.draw_latents(1, 0, Purpose.SNAPSHOT)

    def place(element: int, value: float) -> tuple[int, int]:
        latent = base.clone()
        latent[0, element] = value
        ((top, left),) = places(picture, model.decode(latent)[0])
        return top, left

    top, left = place(9, -2.0)
    assert place(9, 2.0) == (top, left + 8 * (place(9, -1.5)[1] - left))
    below, same_left = place(30, -2.0)
    assert same_left == left
    assert 64 <= below - top <= 70


@pytest.mark.slow
def test_without_an_encoder_there_are_samples_and_sweeps(tmp_path: Path) -> None:
    paths = write_snapshots(tiny_model(encoder=False, law="uniform"), REALS, 20, 640, tmp_path, seed=7)
    assert [path.name for path in paths] == ["samples-000000020.png", "sweeps-000000020.png"]


@pytest.mark.slow
def test_a_diverged_model_is_still_drawn(tmp_path: Path) -> None:
    model = tiny_model()
    next(model.method.networks["generator"].parameters()).fill_(torch.nan)
    for path in write_snapshots(model, REALS, 20, 640, tmp_path, seed=7):
        pixels = np.asarray(Image.open(path)).reshape(-1, 3)
        assert (pixels == NON_FINITE_COLOUR).all(axis=1).sum() >= 64 * 64


def test_points_are_drawn_as_scatter_plots(tmp_path: Path) -> None:
    points = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    paths = write_snapshots(tiny_model((2,)), points, 20, 640, tmp_path, seed=7)
    assert [path.name.split("-")[0] for path in paths] == ["samples", "reconstructions", "fakes", "sweeps"]
    sizes = {Image.open(path).width for path in paths}
    assert min(sizes) > 500


def test_colour_images_of_a_method_in_float64(tmp_path: Path) -> None:
    reals = torch.rand(3, 3, 16, 16) * 2 - 1
    paths = write_snapshots(tiny_model((3, 16, 16), dtype=torch.float64), reals, 2, 64, tmp_path, seed=7)
    assert len(paths) == 4
    for path in paths:
        with Image.open(path) as picture:
            assert picture.mode == "RGB"
