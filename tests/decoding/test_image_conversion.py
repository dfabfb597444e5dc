"""Images made to fit a network: by hand, and alike where shards are built and where a model inverts."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentscale.building.build_options import ImageOptions
from latentscale.building.resizing import resize
from latentscale.decoding.image_conversion import centre_crop, eight_bit_grey
from latentscale.inversion.image_input import load_images


def test_sixteen_bits_are_scaled_and_rounded() -> None:
    image = Image.fromarray(np.array([[0, 128, 129, 385, 386, 65535]], dtype=np.uint16))
    # 257 is one of 255 steps: halves are at 128.5 and 385.5
    assert np.asarray(eight_bit_grey(image)).tolist() == [[0, 0, 1, 1, 2, 255]]


@pytest.mark.parametrize(
    ("size", "aspect", "box"),
    [
        ((7, 4), 1.0, (1, 0, 5, 4)),
        ((4, 7), 1.0, (0, 1, 4, 5)),
        ((5, 5), 1.0, (0, 0, 5, 5)),
        ((9, 4), 2.0, (0, 0, 8, 4)),
        ((4, 9), 2.0, (0, 3, 4, 5)),
    ],
)
def test_the_largest_centred_area(size: tuple[int, int], aspect: float, box: tuple[int, int, int, int]) -> None:
    width, height = size
    pixels = np.arange(width * height, dtype=np.uint8).reshape(height, width)
    left, top, right, bottom = box
    assert np.array_equal(np.asarray(centre_crop(Image.fromarray(pixels), aspect)), pixels[top:bottom, left:right])


@pytest.mark.parametrize("size", [(61, 40), (40, 61), (16, 16), (11, 13)])
def test_a_model_is_given_the_pixels_that_training_was(size: tuple[int, int], tmp_path: Path) -> None:
    width, height = size
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    built = resize(Image.fromarray(pixels), ImageOptions(resolution=16), [])
    given = load_images([tmp_path / "image.png"], (3, 16, 16)).images[0]
    assert np.array_equal(np.asarray(built), given.permute(1, 2, 0).numpy())
