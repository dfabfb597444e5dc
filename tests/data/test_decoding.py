"""Image bytes to pixels: exact for lossless files, converted by known formulas, refused by name otherwise."""

import io

import numpy as np
import pytest
from PIL import Image

from latentscale.data.decoding import decode
from latentscale.errors import UserError

GREY = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
COLOUR = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


def test_pixels_arrive_in_channel_height_width():
    assert np.array_equal(decode(encoded(Image.fromarray(GREY)), (1, 2, 3), "x"), GREY[None])
    pixels = decode(encoded(Image.fromarray(COLOUR)), (3, 2, 3), "x")
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.moveaxis(COLOUR, 2, 0))


def test_grey_and_colour_are_converted():
    assert np.array_equal(decode(encoded(Image.fromarray(GREY)), (3, 2, 3), "x"), np.stack([GREY] * 3))
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode(encoded(Image.fromarray(COLOUR)), (1, 2, 3), "x")[0] - luma).max() <= 1


def test_palette_bilevel_and_opaque_alpha_are_converted():
    grey = Image.fromarray(GREY)
    assert np.array_equal(decode(encoded(grey.convert("P")), (1, 2, 3), "x"), GREY[None])
    assert np.array_equal(decode(encoded(grey.convert("LA")), (1, 2, 3), "x"), GREY[None])
    bilevel = Image.fromarray((GREY > 100).astype(np.uint8) * 255).convert("1")
    assert np.array_equal(decode(encoded(bilevel), (1, 2, 3), "x")[0], (GREY > 100) * 255)
    opaque = Image.fromarray(COLOUR).convert("RGBA")
    assert np.array_equal(decode(encoded(opaque), (3, 2, 3), "x"), np.moveaxis(COLOUR, 2, 0))
    cmyk = decode(encoded(Image.new("CMYK", (3, 2), (0, 0, 0, 255)), "JPEG"), (3, 2, 3), "x")
    assert cmyk.max() <= 4  # black ink


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGB", (4, 2)), "shard.tar member 7 is 2x4 pixels .*not 2x3"),
        (Image.new("I;16", (3, 2)), "shard.tar member 7 has pixels of mode I;16, not 8 bits"),
        (Image.new("RGBA", (3, 2), (9, 9, 9, 128)), "shard.tar member 7 has translucent pixels"),
    ],
)
def test_what_does_not_fit_is_named(image, message):
    with pytest.raises(UserError, match=message) as refused:
        decode(encoded(image), (3, 2, 3), "shard.tar member 7")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "data", [b"", b"no image", encoded(Image.fromarray(COLOUR))[:50]], ids=["empty", "text", "cut off"]
)
def test_what_is_no_image_is_named(data):
    with pytest.raises(UserError, match=r"shard\.tar member 7 is not a readable image"):
        decode(data, (3, 2, 3), "shard.tar member 7")
