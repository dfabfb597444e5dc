"""Every kind of image file becomes upright 8-bit grey or RGB as it should, or is refused by name."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from layouts import built, fill, noise, pixels, samples
from PIL import ExifTags, Image, ImageOps

from latentscale.building.pixels import MAX_PIXELS, read_header, upright_pixels
from latentscale.decoding.sample_arrays import decode
from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.sources.listing import UnreadableItem


def encoded(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **settings)
    return buffer.getvalue()


def array(content: bytes, channels: int = 3, background: tuple[int, int, int] | None = None) -> np.ndarray:
    return np.asarray(upright_pixels(content, channels, background).image)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def deep_png(values: np.ndarray, colour_type: int) -> bytes:
    """A 16-bit PNG, which Pillow cannot write in colour; values are ``[H, W, C]``."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_grey_of_16_bits_is_scaled_to_8():
    values = np.array([[0, 128, 129, 257], [32767, 32768, 65534, 65535]], dtype=np.uint16)
    content = deep_png(values[..., None], 0)
    assert array(content, 1).tolist() == [[0, 0, 1, 1], [127, 128, 255, 255]]
    prepared = upright_pixels(content, 1)
    assert (prepared.file_format, prepared.notes) == ("", ["16 bits a pixel scaled to 8"])
    assert read_header(content).grey
    tiff = encoded(Image.fromarray(values), "TIFF")
    np.testing.assert_array_equal(array(tiff, 1), array(content, 1))


def test_colour_of_16_bits_is_reduced_and_said_so():
    values = np.arange(24, dtype=np.uint16).reshape(2, 4, 3) * 2730
    prepared = upright_pixels(deep_png(values, 2), 3)
    assert np.abs(np.asarray(prepared.image).astype(int) - values / 257).max() <= 1
    assert (prepared.file_format, prepared.notes) == ("", ["16 bits a channel reduced to 8"])


@pytest.mark.parametrize("mode", ["P", "1", "CMYK", "YCbCr"])
def test_other_modes_become_rgb_as_pillow_converts_them(mode):
    image = noise(1).convert(mode)
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    content = encoded(image, kind)
    np.testing.assert_array_equal(array(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    kept = upright_pixels(content, 3).file_format
    # YCbCr is how every JPEG file is stored
    assert kept == ("JPEG" if mode == "YCbCr" else "")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_exif_turns_is_turned(orientation, kind):
    image = noise(2, (8, 4))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = encoded(image, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    stored = np.asarray(image)
    upright = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1), 7: np.rot90(stored, 2).transpose(1, 0, 2), 8: np.rot90(stored),
    }[orientation]  # fmt: skip
    np.testing.assert_array_equal(array(content), upright)
    found = upright_pixels(content, 3)
    assert found.file_format == (kind if orientation == 1 and kind != "TIFF" else "")
    assert found.notes == ([] if orientation == 1 else ["turned as EXIF says"])
    header = read_header(content)
    assert (header.height, header.width) == upright.shape[:2]


def turned_file(image: Image.Image, kind: str, orientation: int) -> bytes:
    """An encoded file whose orientation is in the format's own place, or for XMP in an XMP packet of a TIFF."""
    if kind == "TIFF":
        return encoded(image, kind, tiffinfo={ExifTags.Base.Orientation: orientation})
    if kind == "TIFF, LZW":
        settings = {"compression": "tiff_lzw", "tiffinfo": {ExifTags.Base.Orientation: orientation}}
        return encoded(image, "TIFF", **settings)
    if kind == "TIFF, XMP":
        packet = f'<x:xmpmeta><rdf:RDF><rdf:Description tiff:Orientation="{orientation}"/></rdf:RDF></x:xmpmeta>'
        return encoded(image, "TIFF", tiffinfo={ExifTags.Base.XMLPacket: packet.encode()})
    lossless = {"WEBP": {"lossless": True}}.get(kind, {})
    return encoded(image, kind, exif=orientation_exif(orientation), **lossless)


@pytest.mark.parametrize("kind", ["TIFF", "TIFF, LZW", "TIFF, XMP", "PNG", "JPEG", "WEBP", "AVIF"])
def test_every_format_that_records_an_orientation_is_measured_and_turned_alike(tmp_path, kind):
    Image.init()
    if kind not in Image.SAVE and not kind.startswith("TIFF"):
        pytest.skip(f"this Pillow knows no {kind}")
    # blocks, so that lossy formats keep which corner is which
    image = noise(2, (3, 2)).resize((48, 32), Image.Resampling.NEAREST)
    for orientation in range(1, 9):
        content = turned_file(image, kind, orientation)
        with Image.open(io.BytesIO(encoded(image, exif=orientation_exif(orientation)))) as opened:
            expected = np.asarray(ImageOps.exif_transpose(opened)).astype(int)
        header, found = read_header(content), upright_pixels(content, 3)
        assert (header.height, header.width) == expected.shape[:2]
        assert np.abs(np.asarray(found.image).astype(int) - expected).mean() < 12
        assert found.notes == (["turned as EXIF says"] if orientation > 1 else [])
        # training decodes a sample of this format as the build does
        if kind != "TIFF, XMP":
            np.testing.assert_array_equal(
                decode(content, (3, *expected.shape[:2]), "x"), array(content).transpose(2, 0, 1)
            )
        fill(tmp_path / f"{orientation}", {"a.img.tif": content, "b.png": encoded(found.image)})
        size = ShardedDataset.open(
            built("folder", tmp_path / f"{orientation}", tmp_path / f"out{orientation}").out / "train"
        )
        assert size.shape == (3, *expected.shape[:2])


def orientation_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def test_tiffs_of_one_upright_size_are_of_one_size(tmp_path):
    turned = encoded(noise(3, (60, 40)), "TIFF", tiffinfo={ExifTags.Base.Orientation: 6})
    fill(tmp_path / "in", {"a.tif": turned, "b.png": encoded(noise(4, (40, 60)))})
    built("folder", tmp_path / "in", tmp_path / "out")
    assert pixels(tmp_path / "out/train").shape == (2, 3, 60, 40)
    np.testing.assert_array_equal(
        pixels(tmp_path / "out/train")[0], np.rot90(np.asarray(noise(3, (60, 40))), -1).transpose(2, 0, 1)
    )


@pytest.mark.parametrize("resolution", [None, 32])
def test_bytes_before_the_end_of_a_jpeg_cost_nothing(tmp_path, resolution):
    whole = encoded(noise(3, (32, 32)), "JPEG", quality=95)
    fill(tmp_path / "in", {"a.jpg": whole[:-2] + b"\x12\x34\x56" * 5 + whole[-2:], "b.jpg": whole})
    result = built("folder", tmp_path / "in", tmp_path / "out", **({"resolution": resolution} if resolution else {}))
    first, second = pixels(tmp_path / "out/train")
    np.testing.assert_array_equal(first, second)
    assert [sample.extension for sample in samples(tmp_path / "out/train")] == ["png", "jpg"]
    assert result.notes == {"unused bytes of the JPEG left out: it may be damaged": 1}
    # what is missing cannot be made up
    fill(tmp_path / "cut", {"a.jpg": whole[:-200] + whole[-2:]})
    with pytest.raises(UserError, match=r"a\.jpg is not a readable image \(Corrupt JPEG data: premature end"):
        built("folder", tmp_path / "cut", tmp_path / "new")


def test_a_turned_jpeg_is_written_anew_and_an_upright_one_kept(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = encoded(noise(3, (16, 16)), "JPEG", exif=exif, quality=95)
    exif[ExifTags.Base.Orientation] = 1
    upright = encoded(noise(4, (16, 16)), "JPEG", exif=exif)
    fill(tmp_path / "in", {"a.jpg": turned, "b.jpg": upright})
    result = built("folder", tmp_path / "in", tmp_path / "out")
    first, second = samples(tmp_path / "out/train")
    assert (first.extension, second.extension) == ("png", "jpg")
    assert second.image == upright
    assert result.notes == {"turned as EXIF says": 1}
    expected = np.rot90(np.asarray(Image.open(io.BytesIO(turned))), -1).transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels(tmp_path / "out/train")[0], expected)
    assert b"Exif" not in first.image


def test_alpha_is_dropped_where_opaque_and_else_laid_over_a_background():
    image = noise(5).convert("RGBA")
    np.testing.assert_array_equal(array(encoded(image)), np.asarray(noise(5)))
    image.putalpha(Image.fromarray(np.full((8, 8), 51, dtype=np.uint8)))
    with pytest.raises(UnreadableItem, match=r"has translucent pixels .--background"):
        array(encoded(image))
    found = array(encoded(image), background=(255, 0, 0)).astype(int)
    expected = np.asarray(noise(5)) * 0.2 + np.array([255, 0, 0]) * 0.8
    assert np.abs(found - expected).max() <= 1
    grey = Image.merge("LA", (noise(6).convert("L"), Image.new("L", (8, 8), 255)))
    np.testing.assert_array_equal(array(encoded(grey), 1), np.asarray(noise(6).convert("L")))
    transparent = Image.new("P", (8, 8))
    with pytest.raises(UnreadableItem, match="translucent"):
        array(encoded(transparent, "PNG", transparency=0))


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    prepared = upright_pixels(content, 3)
    assert np.asarray(prepared.image)[0, 0].tolist() == [255, 0, 0]
    assert (prepared.file_format, prepared.notes) == ("", ["first frame taken"])


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_of_a_tiff_of_several_pages_the_first_is_taken(tmp_path, orientation, compression):
    pages = [noise(number, (8, 4)) for number in range(3)]
    settings = {"compression": compression, "tiffinfo": {ExifTags.Base.Orientation: orientation}}
    content = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:], **settings)
    turned = ["turned as EXIF says"] if orientation > 1 else []
    assert upright_pixels(content, 3).notes == ["first frame taken", *turned]
    expected = np.rot90(np.asarray(pages[0]), {1: 0, 3: 2, 6: -1}[orientation])
    np.testing.assert_array_equal(array(content), expected)
    header = read_header(content)
    assert (header.height, header.width) == expected.shape[:2]
    fill(tmp_path / "in", {"a.tif": content})
    built("folder", tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(pixels(tmp_path / "out/train")[0], expected.transpose(2, 0, 1))


def bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an image"),
        (b"GIF89a", "is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "is not an image"),
        (bomb(MAX_PIXELS // 1000 + 1, 1000), "is a decompression bomb"),
        (bomb(2**15, 2**15), "is a decompression bomb"),
        (encoded(noise(1, (64, 64)), "JPEG")[:-300], r"is not a readable image \(Premature end of JPEG file\)$"),
        (encoded(noise(1, (64, 64)))[:-300], "is damaged"),
        (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "pixels of mode F, whose range is unknown"),
        (encoded(Image.fromarray(np.zeros((4, 4), np.int32)), "TIFF"), "pixels of mode I, whose range is unknown"),
    ],
)
def test_what_cannot_be_taken_says_why(content, message):
    with pytest.raises(UnreadableItem, match=message) as refused:
        upright_pixels(content, 3)
    assert "\n" not in str(refused.value)


def test_a_flipped_byte_is_found_where_a_format_can_show_it():
    content = bytearray(encoded(noise(1, (64, 64))))
    content[len(content) // 2] ^= 1
    with pytest.raises(UnreadableItem, match="is damaged"):
        upright_pixels(bytes(content), 3)


def test_formats_that_training_does_not_read_fast_are_written_as_png(tmp_path):
    image = noise(7)
    files = {"a.bmp": "BMP", "b.tif": "TIFF", "c.ppm": "PPM", "d.tga": "TGA", "e.webp": "WEBP", "f.png": "PNG"}
    lossless = {"WEBP": {"lossless": True}}
    fill(tmp_path / "in", {name: encoded(image, kind, **lossless.get(kind, {})) for name, kind in files.items()})
    built("folder", tmp_path / "in", tmp_path / "out")
    assert [sample.extension for sample in samples(tmp_path / "out/train")] == ["png"] * 4 + ["webp", "png"]
    for found in pixels(tmp_path / "out/train"):
        np.testing.assert_array_equal(found, np.asarray(image).transpose(2, 0, 1))
    built("folder", tmp_path / "in", tmp_path / "jpeg", format="jpeg", quality=50)
    found = samples(tmp_path / "jpeg/train")
    assert {sample.extension for sample in found} == {"jpg"}
    assert found[0].image == encoded(image, "JPEG", quality=50, subsampling="4:4:4")


def damaged_qoi() -> bytes:
    """No pixels follow the header: IndexError."""
    return b"qoif" + struct.pack(">IIBB", 8, 8, 3, 0)


def damaged_tiff() -> bytes:
    """Its offsets are text: TypeError."""
    content = bytearray(encoded(noise(1), "TIFF"))
    directory = struct.unpack_from("<I", content, 4)[0]
    for entry in range(directory + 2, directory + 2 + 12 * struct.unpack_from("<H", content, directory)[0], 12):
        if struct.unpack_from("<H", content, entry)[0] == ExifTags.Base.StripOffsets:
            struct.pack_into("<H", content, entry + 2, 2)
    return bytes(content)


def damaged_avif() -> bytes:
    """Zeros in its planes: RuntimeError."""
    Image.init()
    if "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow knows no AVIF")
    content = bytearray(encoded(noise(1, (32, 24)), "AVIF"))
    start = content.index(b"mdat") + 8
    content[start : start + 200] = bytes(200)
    return bytes(content)


def damaged_exif(kind: str) -> bytes:
    """SyntaxError."""
    return encoded(noise(1), kind, exif=b"Exif\0\0nonsense")


def small_bmp() -> bytes:
    return encoded(noise(2), "BMP")


DAMAGED = {
    "qoi": damaged_qoi,
    "tif": damaged_tiff,
    "avif": damaged_avif,
    "png": lambda: damaged_exif("PNG"),
    "webp": lambda: damaged_exif("WEBP"),
}


@pytest.mark.parametrize("suffix", DAMAGED)
def test_whatever_a_decoder_raises_is_damage_with_a_name(tmp_path, suffix):
    content = DAMAGED[suffix]()
    with pytest.raises(UnreadableItem, match="is damaged"):
        upright_pixels(content, 3)
    if suffix in ("qoi", "tif", "avif"):  # EXIF alone spoils no decoding
        with pytest.raises(UserError, match="sample is not a readable image") as refused:
            decode(content, (3, 24, 32) if suffix == "avif" else (3, 8, 8), "sample")
        assert "\n" not in str(refused.value)
    fill(tmp_path / "in", {f"a.{suffix}": content, "b.bmp": small_bmp()})
    result = built("folder", tmp_path / "in", tmp_path / "out", on_error="skip", resolution=8)
    assert (result.counts, [problem.name for problem in result.skipped]) == ({"train": 1}, [f"a.{suffix}"])


def test_want_of_memory_is_no_damage(monkeypatch):
    def load(self: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(MemoryError):
        upright_pixels(small_bmp(), 3)
