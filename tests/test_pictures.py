"""Pictures contain the pixels and points that they were given."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentscale.pictures import (
    COLOURS,
    NON_FINITE_COLOUR,
    PointCloud,
    Row,
    RowGroup,
    draw_grid,
    draw_scatter,
    join_panels,
    magnification,
    save_png,
    to_uint8,
)


def positions_of(picture: Image.Image, cell: np.ndarray) -> list[tuple[int, int]]:
    """The (top, left) positions in a picture where an RGB cell occurs."""
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(picture), cell.shape)
    return [(int(top), int(left)) for top, left, _ in np.argwhere((windows == cell).all(axis=(3, 4, 5)))]


def magnified(image: torch.Tensor, factor: int) -> np.ndarray:
    grey = to_uint8(image)[0].numpy().repeat(factor, 0).repeat(factor, 1)
    return np.stack([grey] * 3, axis=2)


def test_pixels_are_rounded_and_clipped() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 0.99999, 1.5])
    assert to_uint8(values).tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize(("size", "factor"), [((8, 8), 8), ((28, 28), 3), ((4, 33), 2), ((64, 64), 1), ((256, 256), 1)])
def test_small_images_are_magnified_until_readable(size: tuple[int, int], factor: int) -> None:
    assert magnification(*size) == factor


@pytest.mark.slow
def test_a_grid_shows_every_image_in_its_row_and_column() -> None:
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    groups = [RowGroup([Row("real", images[:2]), Row("made", images[2:])], ["first", "second"])]
    picture = draw_grid(groups, "A title", "with a subtitle")
    found = [positions_of(picture, magnified(image, 8)) for image in images]
    assert [len(positions) for positions in found] == [1, 1, 1, 1]
    (top, left), (same_top, right), (below, same_left), _ = (positions[0] for positions in found)
    assert same_top == top
    assert same_left == left
    assert right >= left + 64
    assert below >= top + 64


def test_non_finite_values_are_magenta() -> None:
    image = torch.zeros(1, 1, 64, 64)
    image[0, 0, 5, 7] = torch.nan
    image[0, 0, 6, 7] = torch.inf
    pixels = np.asarray(draw_grid([RowGroup([Row("", image)])], "broken"))
    assert (pixels == NON_FINITE_COLOUR).all(axis=2).sum() == 2


def test_colour_images_keep_their_channels() -> None:
    image = torch.tensor([1.0, -1.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 64, 64)
    pixels = np.asarray(draw_grid([RowGroup([Row("", image)])], "")).reshape(-1, 3)
    assert (pixels == (255, 0, 128)).all(axis=1).sum() == 64 * 64


def test_a_scatter_plot_draws_points_at_their_coordinates() -> None:
    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    upper_right = PointCloud("upper right", torch.tensor([[1.0, 0.9]]))
    far = PointCloud("far", torch.tensor([[50.0, 0.0], [torch.nan, 0.0]]))
    pixels = np.asarray(draw_scatter([PointCloud("corners", corners), upper_right, far], "points"))
    legend_height = 120

    def drawn(colour: tuple[int, int, int]) -> np.ndarray:
        # with a tolerance, because the dots are smoothed
        spots = np.argwhere(np.abs(pixels.astype(int) - colour).max(axis=2) < 30)
        return spots[spots[:, 0] > legend_height]

    point = drawn(COLOURS[1]).mean(axis=0)
    height, width, _ = pixels.shape
    assert point[1] > 0.8 * width
    assert point[0] < 0.4 * height
    assert len(drawn(COLOURS[2])) == 0


def test_a_png_file_contains_the_picture(tmp_path: Path) -> None:
    picture = draw_grid([RowGroup([Row("x", torch.zeros(1, 1, 8, 8))])], "title")
    path = save_png(picture, tmp_path / "new" / "a.png")
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(picture))


def test_joined_panels_are_aligned_at_the_bottom_of_their_rows() -> None:
    sizes = [(30, 20), (40, 50), (25, 10)]
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    panels = [Image.new("RGB", size, colour) for size, colour in zip(sizes, colours, strict=True)]
    pixels = np.asarray(join_panels(panels, 2, "title"))
    places = [np.argwhere((pixels == colour).all(axis=2)) for colour in colours]
    corners = [(spots.min(axis=0), spots.max(axis=0) + 1) for spots in places]
    for (low, high), (width, height) in zip(corners, sizes, strict=True):
        assert (high - low).tolist() == [height, width]
    heading = corners[1][0][0]
    assert [low.tolist() for low, _ in corners] == [[heading + 30, 0], [heading, 30], [heading + 50, 0]]
    assert pixels.shape[:2] == (heading + 60, 70)
