"""Decode any image file to upright 8-bit grey or RGB pixels."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from latentscale.decoding.image_conversion import eight_bit_grey
from latentscale.decoding.jpeg_warnings import (
    UNREPORTED_BYTES,
    extra_bytes,
    followed_warning,
    is_harmless,
    reported_warning,
)
from latentscale.decoding.pillow_decoder import unreadable
from latentscale.sources.listing import UnreadableItem

MAX_PIXELS = 89_478_485
"""Limit for one image (256 MiB in RGB). A larger one is refused as a decompression bomb before it is decoded."""

# Pillow's formats for photographs; to decode some of its other formats, Pillow starts external programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF", "QOI")
_MODES = {1: "L", 3: "RGB"}
_CONVERTIBLE = ("1", "P", "CMYK", "YCbCr", "HSV")
_ROTATED_ORIENTATIONS = range(2, 9)
_PNG_DEPTH_OFFSET = 24


@dataclass
class Pixels:
    """A decoded image in the requested mode.

    Attributes:
        image: upright, mode L or RGB.
        file_format: JPEG, PNG or WEBP if the file holds exactly these pixels, so that its bytes can be kept; else
            empty.
        notes: the conversions that were applied.
    """

    image: Image.Image
    file_format: str
    notes: list[str]


@dataclass(frozen=True)
class Header:
    """What a file's header says: the height and width of the upright image, and whether it is grey."""

    height: int
    width: int
    grey: bool


def read_header(content: bytes | NDArray[np.uint8]) -> Header:
    """Read the header of an image without decoding it.

    Raises:
        UnreadableItem: the content is not an image, or the image is too large.
    """
    if isinstance(content, np.ndarray):
        return Header(content.shape[0], content.shape[1], content.ndim == 2)
    with _open(content) as image, _report_damage():
        width, height = _stored_size(image)
        if image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8):
            width, height = height, width
        return Header(height, width, _is_grey(image))


def upright_pixels(
    content: bytes | NDArray[np.uint8], channels: int, background: tuple[int, int, int] | None = None
) -> Pixels:
    """Decode an image, rotate it by its EXIF orientation and convert it to grey or RGB.

    Raises:
        UnreadableItem: the content is not an image, or the image is damaged, too large, has more than 8 bits without
            being 16-bit grey, or is translucent and there is no background.
    """
    mode = _MODES[channels]
    if isinstance(content, np.ndarray):
        image = Image.fromarray(np.ascontiguousarray(content))
        return Pixels(image if image.mode == mode else image.convert(mode), "", [])
    with _open(content) as image, _report_damage():
        warning = reported_warning(content) if _is_jpeg(image) else ""
        _refuse_hidden_damage(image, content, warning)
        # counting a loaded TIFF's frames would drop its pixels
        notes = ["first frame taken"] if image.format != "MPO" and getattr(image, "n_frames", 1) > 1 else []
        turned = image.format == "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) in _ROTATED_ORIENTATIONS
        image.load()
        if warning != "":
            # simplejpeg has not told whether pixels are lost
            warning = followed_warning(content)
            _refuse_lost_pixels(warning)
            notes += ["unused bytes of the JPEG left out: it may be damaged"] * (
                extra_bytes(warning) > UNREPORTED_BYTES
            )
        notes += ["turned as EXIF says"] * turned
        return _in_mode(image, content, mode, background, notes)


@contextmanager
def _report_damage() -> Iterator[None]:
    """Raise errors of any kind, as Pillow's plugins do for damaged bytes, as UnreadableItem; let MemoryError pass."""
    try:
        yield
    except (UnreadableItem, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or "Pillow cannot decode it"
        raise UnreadableItem(f"is damaged ({reason})") from error


@cache
def _formats() -> tuple[str, ...]:
    # how Pillow was built decides which of them it can open
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _open(content: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # up to twice its limit, Pillow only warns about a decompression bomb
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=_formats())
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnreadableItem(f"is a decompression bomb, more than {MAX_PIXELS} pixels") from error
    except MemoryError:
        raise
    except Exception as error:
        raise UnreadableItem("is not an image, or its first bytes are damaged") from error
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableItem(f"is a decompression bomb: {image.width}x{image.height} is more than {MAX_PIXELS} pixels")
    return image


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as stored, before the orientation applies; Pillow gives a TIFF's after that of its tag."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        width, height = (int(image.tag_v2[tag]) for tag in (TiffImagePlugin.IMAGEWIDTH, TiffImagePlugin.IMAGELENGTH))
        return width, height
    return image.size


def _refuse_hidden_damage(image: Image.Image, content: bytes, warning: str | None) -> None:
    """Refuse damage that Pillow decodes without an error."""
    if image.format == "PNG":
        # verify() checks the checksums, and leaves the image unusable
        with Image.open(io.BytesIO(content), formats=_formats()) as another:
            another.verify()
    _refuse_lost_pixels(warning or "")


def _refuse_lost_pixels(warning: str) -> None:
    if warning and not is_harmless(warning):
        raise UnreadableItem(unreadable(warning).reason)


def _is_jpeg(image: Image.Image) -> bool:
    return image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("L", "LA", "La", "1") or image.mode.startswith("I;16")


def _in_mode(
    image: Image.Image, content: bytes, mode: str, background: tuple[int, int, int] | None, notes: list[str]
) -> Pixels:
    file_format = {"JPEG": "JPEG", "MPO": "JPEG", "PNG": "PNG", "WEBP": "WEBP"}.get(image.format or "", "")
    if image.getexif().get(ExifTags.Base.Orientation, 1) in _ROTATED_ORIENTATIONS:
        image = ImageOps.exif_transpose(image)
        notes.append("turned as EXIF says")
    if image.mode.startswith("I;16"):
        image = eight_bit_grey(image)
        notes.append("16 bits a pixel scaled to 8")
    elif file_format == "PNG" and content[_PNG_DEPTH_OFFSET] == 16:
        # Pillow keeps the high byte of 16-bit colour
        notes.append("16 bits a channel reduced to 8")
    if image.has_transparency_data:
        image = _opaque(image, background, notes)
    if image.mode not in ("L", "RGB"):
        if image.mode not in _CONVERTIBLE:
            raise UnreadableItem(
                f"has pixels of mode {image.mode}, whose range is unknown: convert the image to 8 bits"
            )
        notes.append(f"{image.mode} converted")
        image = image.convert("RGB")
    if image.mode != mode:
        if mode == "L":
            notes.append("colour converted to grey")
        grey = image
        image = image.convert(mode)
        # a grey file can be kept: training reads it as RGB
        file_format = file_format if grey.mode == "L" else ""
    return Pixels(image, "" if notes else file_format, notes)


def _opaque(image: Image.Image, background: tuple[int, int, int] | None, notes: list[str]) -> Image.Image:
    grey = _is_grey(image)
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema() == (255, 255):
        notes.append("opaque alpha channel dropped")
    elif background is None:
        raise UnreadableItem("has translucent pixels (--background COLOR blends them with a colour)")
    else:
        notes.append("translucent pixels laid over the background")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
        grey = grey and len(set(background)) == 1
    # the luma of equal channels is their value
    return image.convert("RGB").convert("L") if grey else image.convert("RGB")
