"""Image bytes to pixels: exact for lossless files, converted by known formulas, refused by name otherwise.

Every rule holds whichever libraries decode: each test runs with the fast ones and with Pillow alone.
"""

import gc
import io
import pickle
import struct
import zlib
from functools import partial

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from latentscale.decoding import decoder as decoding
from latentscale.decoding import sample_arrays
from latentscale.decoding.decoder import Decoder
from latentscale.decoding.pillow_decoder import ImageRefused
from latentscale.errors import UserError


@pytest.fixture(params=["fast", "pillow"])
def decode(request):
    return partial(sample_arrays.decode, decoder=Decoder(request.param))


GREY = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
COLOUR = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


def test_pixels_arrive_in_channel_height_width(decode):
    assert np.array_equal(decode(encoded(Image.fromarray(GREY)), (1, 2, 3), "x"), GREY[None])
    pixels = decode(encoded(Image.fromarray(COLOUR)), (3, 2, 3), "x")
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.moveaxis(COLOUR, 2, 0))


def test_grey_and_colour_are_converted(decode):
    assert np.array_equal(decode(encoded(Image.fromarray(GREY)), (3, 2, 3), "x"), np.stack([GREY] * 3))
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode(encoded(Image.fromarray(COLOUR)), (1, 2, 3), "x")[0] - luma).max() <= 1


def test_palette_bilevel_and_opaque_alpha_are_converted(decode):
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
        (Image.new("LA", (3, 2), (9, 128)), "shard.tar member 7 has translucent pixels"),
    ],
)
def test_what_does_not_fit_is_named(decode, image, message):
    with pytest.raises(UserError, match=message) as refused:
        decode(encoded(image), (3, 2, 3), "shard.tar member 7")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "data", [b"", b"no image", encoded(Image.fromarray(COLOUR))[:50]], ids=["empty", "text", "cut off"]
)
def test_what_is_no_image_is_named(decode, data):
    with pytest.raises(UserError, match=r"shard\.tar member 7 is not a readable image"):
        decode(data, (3, 2, 3), "shard.tar member 7")


def photograph(mode: str = "RGB", size: tuple[int, int] = (37, 23)) -> Image.Image:
    """Smooth colours, as JPEG is made for."""
    width, height = size
    rows, columns = np.mgrid[0:height, 0:width]
    waves = np.sin(np.stack([rows * columns / 37, rows / 3 + columns / 5, columns * columns / 61], axis=-1))
    return Image.fromarray(np.rint(127.5 + 127.5 * waves).astype(np.uint8)).convert(mode)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_the_fast_libraries_give_a_jpegs_pixels_as_pillow_does(mode, channels, sampling):
    file = io.BytesIO()
    photograph(mode).save(file, "JPEG", quality=85, subsampling=sampling)
    fast, pillow = (
        sample_arrays.decode(file.getvalue(), (channels, 23, 37), "x", Decoder(name)) for name in ("fast", "pillow")
    )
    assert np.array_equal(fast, pillow)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_fast_libraries_give_a_pngs_pixels_as_pillow_does(mode, channels):
    data = encoded(photograph(mode))
    fast, pillow = (sample_arrays.decode(data, (channels, 23, 37), "x", Decoder(name)) for name in ("fast", "pillow"))
    assert np.array_equal(fast, pillow)


def test_an_image_is_decoded_into_its_row_of_a_batch_and_nowhere_else():
    for name in ("fast", "pillow"):
        for data in (encoded(photograph()), encoded(photograph(), "JPEG")):
            batch = np.full((3, 23, 37, 3), 7, dtype=np.uint8)
            Decoder(name).into(data, batch[1])
            assert np.array_equal(
                batch[1].transpose(2, 0, 1), sample_arrays.decode(data, (3, 23, 37), "x", Decoder(name))
            )
            assert (batch[[0, 2]] == 7).all()
            planes = np.empty((3, 23, 37), dtype=np.uint8)
            Decoder(name).into(data, planes.transpose(1, 2, 0))
            assert np.array_equal(planes, batch[1].transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_exif_says_is_not_upright_is_turned(decode, kind, orientation):
    corners = np.zeros((16, 32, 3), dtype=np.uint8)
    corners[:8, :16], corners[:8, 16:], corners[8:, :16] = 250, 160, 80  # dark below right
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(corners).save(file, kind, exif=exif, **({"lossless": True} if kind == "WebP" else {}))
    turned = {
        1: corners, 2: corners[:, ::-1], 3: corners[::-1, ::-1], 4: corners[::-1],
        5: corners.transpose(1, 0, 2), 6: np.rot90(corners, -1), 7: np.rot90(corners, -1)[:, ::-1][::-1, ::-1],
        8: np.rot90(corners),
    }[orientation]  # fmt: skip
    pixels = decode(file.getvalue(), (3, *turned.shape[:2]), "x").transpose(1, 2, 0)
    assert np.abs(pixels.astype(int) - turned).max() <= 4


@pytest.mark.parametrize(
    "data",
    [
        imagecodecs.png_encode(np.zeros((2, 3, 3), dtype=np.uint16)),
        imagecodecs.png_encode(np.zeros((2, 3), dtype=np.uint16)),
        imagecodecs.tiff_encode(np.zeros((2, 3), dtype=np.uint16)),
    ],
    ids=["PNG of RGB", "PNG of grey", "TIFF of grey"],
)
def test_sixteen_bits_are_refused_and_not_cut_to_eight(decode, data):
    with pytest.raises(UserError, match=r"member 7 has pixels of mode .*16.*, not 8 bits: convert it"):
        decode(data, (3, 2, 3), "shard.tar member 7")


def test_a_colour_that_is_transparent_is_refused_where_it_occurs(decode):
    image = Image.fromarray(COLOUR)
    for colour, translucent in ((tuple(COLOUR[1, 1].tolist()), True), ((1, 2, 3), False)):
        file = io.BytesIO()
        image.save(file, "PNG", transparency=colour)
        if translucent:
            with pytest.raises(UserError, match="x has translucent pixels"):
                decode(file.getvalue(), (3, 2, 3), "x")
        else:
            assert np.array_equal(decode(file.getvalue(), (3, 2, 3), "x"), np.moveaxis(COLOUR, 2, 0))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_decompression_bomb_is_refused_by_its_header(decode, kind, monkeypatch):
    if kind == "PNG":
        header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
        end = chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end
    else:
        small = encoded(photograph(), "JPEG")
        start = small.index(b"\xff\xc0")
        data = small[: start + 5] + struct.pack(">HH", 50_000, 50_000) + small[start + 9 :]
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("its pixels were decoded"))
    with pytest.raises(UserError, match=r"member 7 is (50000x50000 pixels|not a readable image .*bomb)"):
        decode(data, (3, 23, 37), "shard.tar member 7")


def test_a_flipped_byte_of_a_png_is_found_wherever_it_is(decode):
    data = encoded(photograph())
    for place in range(8, len(data), 11):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(UserError, match="member 7 is "):
            decode(bytes(damaged), (3, 23, 37), "shard.tar member 7")


def test_damaged_grey_pngs_leave_the_memory_of_the_process_whole():
    """A library that frees what is not its own would end this process."""
    whole, generator = encoded(photograph("L")), np.random.default_rng(0)
    rows = np.zeros((8, 23, 37, 1), dtype=np.uint8)
    refused = 0
    for number in range(200):
        damaged = bytearray(whole)
        damaged[generator.integers(41, len(whole))] ^= 1 << number % 8
        try:
            Decoder().into(bytes(damaged), rows[number % 8])
        except ImageRefused:
            refused += 1
    assert refused > 100
    gc.collect()
    Decoder().into(whole, rows[0])
    assert np.array_equal(rows[0, :, :, 0], np.asarray(photograph("L")))


def test_which_libraries_decode_is_said_and_travels():
    fast, pillow = Decoder("fast"), Decoder("pillow")
    assert fast.describe() == "simplejpeg for JPEG, imagecodecs for PNG, Pillow for the rest"
    assert pickle.loads(pickle.dumps(pillow)).describe() == "Pillow for JPEG, Pillow for PNG, Pillow for the rest"
    assert fast.identity(["png", "webp"]) == {}
    (name, value), (_, other) = (*fast.identity(["png", "jpg"]).items(), *pillow.identity(["jpeg"]).items())
    assert name == "data.decoder for JPEG"
    assert (value.split()[0], other.split()[0]) == ("simplejpeg", "Pillow")
    with pytest.raises(UserError, match=r"data\.decoder=quick does not exist: use one of auto, fast, pillow"):
        Decoder("quick")


def test_a_library_that_is_missing_leaves_pillow_or_is_asked_for(monkeypatch):
    whole = decoding.importlib.import_module

    def without_simplejpeg(name):
        if name == "simplejpeg":
            raise ImportError("no such module")
        return whole(name)

    monkeypatch.setattr(decoding.importlib, "import_module", without_simplejpeg)
    found = Decoder("auto")
    assert (found.jpeg, found.png) == ("Pillow", "imagecodecs")
    with pytest.raises(UserError, match=r"data\.decoder=fast needs simplejpeg, .*pip install simplejpeg"):
        Decoder("fast")
