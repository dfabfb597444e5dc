"""Decode any image file to upright 8-bit grey or RGB pixels."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from latentscale.decoding.decoder import default_decoder
from latentscale.decoding.image_conversion import eight_bit_grey
from latentscale.decoding.pillow_decoder import UPRIGHT, ImageRefused, exif_orientation
from latentscale.sources.listing import UnreadableItem

MAX_PIXELS = 89_478_485
"""Limit for one image (256 MiB in RGB). A larger one is refused as a decompression bomb before it is decoded."""

# Pillow's formats for photographs; to decode some of its other formats, Pillow starts external programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF", "QOI")
_MODES = {1: "L", 3: "RGB"}
_CONVERTIBLE = ("1", "P", "CMYK", "YCbCr", "HSV")
_ROTATED_ORIENTATIONS = range(2, 9)
_PNG_DEPTH_OFFSET = 24
_BYTES_BEFORE_END = re.compile(r"extraneous bytes before marker 0xd9")


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
        width, height = image.size
        # Pillow has turned the size of a TIFF, and turns its pixels when it decodes them
        if image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8):
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
        notes = _refuse_hidden_damage(image, content)
        turned = image.format == "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) in _ROTATED_ORIENTATIONS
        image.load()
        notes += ["turned as EXIF says"] if turned else []
        return _in_mode(image, content, mode, background, notes)


@contextmanager
def _report_damage() -> Iterator[None]:
    """Raise errors of any kind, as Pillow's plugins do for damaged bytes, as UnreadableItem; let MemoryError pass."""
    try:
        yield
    except (UnreadableItem, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
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


def _refuse_hidden_damage(image: Image.Image, content: bytes) -> list[str]:
    """Refuse damage that Pillow decodes without an error, and files that the decoders used in training refuse.

    Returns:
        What is unusual in the file although its pixels can be used; it must then be written anew.
    """
    if image.format == "PNG":
        # verify() checks the checksums, and leaves the image unusable
        with Image.open(io.BytesIO(content), formats=_formats()) as another:
            another.verify()
    elif (
        image.format in ("JPEG", "MPO")
        and image.mode in ("L", "RGB")
        and exif_orientation(image.info.get("exif")) == UPRIGHT
    ):
        try:
            default_decoder().into(content, np.empty((image.height, image.width, len(image.getbands())), np.uint8))
        except ImageRefused as refusal:
            # all blocks were decoded; cameras and editors leave such bytes, and Pillow passes over them
            if not _BYTES_BEFORE_END.search(refusal.reason):
                raise UnreadableItem(refusal.reason) from refusal
            return ["bytes before the end of the JPEG left out"]
    return []


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("L", "LA", "La", "1") or image.mode.startswith("I;16")


def _in_mode(
    image: Image.Image, content: bytes, mode: str, background: tuple[int, int, int] | None, notes: list[str]
) -> Pixels:
    file_format = {"JPEG": "JPEG", "MPO": "JPEG", "PNG": "PNG", "WEBP": "WEBP"}.get(image.format or "", "")
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        notes.append("first frame taken")
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
