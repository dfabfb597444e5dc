"""Decoding with Pillow, and the rules for converting any image to 8-bit grey or RGB."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

_GREY_OR_COLOUR = ("L", "RGB")
_CONVERTIBLE = ("1", "P", "CMYK", "YCbCr")
_WITH_ALPHA = ("LA", "PA", "La", "RGBA", "RGBa")
_MODE = {1: "L", 3: "RGB"}
_ORIENTATION_TAG = 0x0112
UPRIGHT = 1


class ImageRefused(Exception):
    """An image cannot be used for training; the message continues a sentence that starts with the image's name.

    Args:
        reason: why, without a remedy; building shards has remedies of its own.
        remedy: what to do if the image is in a shard.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason, remedy)
        self.reason = reason
        self._remedy = remedy

    def __str__(self) -> str:
        return f"{self.reason}: {self._remedy}"


def refuse_size(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Refuse an image of the wrong ``(height, width)``, before decoding: a decompression bomb ends here.

    Raises:
        ImageRefused: naming both sizes.
    """
    if size != wanted:
        raise ImageRefused(
            f"is {size[0]}x{size[1]} pixels (height x width), not {wanted[0]}x{wanted[1]}",
            "rebuild the dataset at the expected resolution",
        )


def unreadable(error: Exception | str) -> ImageRefused:
    """Return the error for an image that cannot be decoded, with the decoder's message."""
    message = " ".join(str(error).split()) or type(error).__name__
    return ImageRefused(f"is not a readable image ({message})", "leave it out and rebuild the dataset")


def exif_orientation(exif: bytes | None) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) if there is none or it is unreadable."""
    if not exif:
        return UPRIGHT
    tags = Image.Exif()
    try:
        tags.load(exif)
        return int(tags.get(_ORIENTATION_TAG, UPRIGHT))
    except Exception:  # damaged EXIF data does not make the pixels unusable
        return UPRIGHT


def decode_with_pillow(data: bytes, out: NDArray[np.uint8]) -> None:
    """Decode one image file of any format that Pillow reads.

    Args:
        data: the file's bytes.
        out: uint8 ``[H, W, C]`` of the expected size, C is 1 or 3; receives the pixels.

    Raises:
        ImageRefused: the file is unreadable, has another size, translucent pixels, or more than 8 bits per channel.
    """
    height, width, channels = out.shape
    try:
        if data.startswith(b"\x89PNG"):
            # Pillow accepts a damaged PNG whose pixels can still be inflated; after verify() the image must be reopened
            with Image.open(io.BytesIO(data)) as image:
                image.verify()
        with Image.open(io.BytesIO(data)) as image:
            orientation = exif_orientation(image.info.get("exif"))
            transposed = orientation in (5, 6, 7, 8)
            refuse_size(image.size if transposed else image.size[::-1], (height, width))
            _refuse_deep_colour(image)
            if orientation != UPRIGHT:
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
            pixels = np.asarray(_convert(image, _MODE[channels]))
    except UnidentifiedImageError as error:  # its message would show the repr of a BytesIO
        raise unreadable("unknown image format") from error
    except (ImageRefused, MemoryError):
        raise
    except Exception as error:  # on damaged files, Pillow's plugins raise errors of any type
        raise unreadable(error) from error
    out[:] = pixels.reshape(out.shape)


def _refuse_deep_colour(image: ImageFile.ImageFile) -> None:
    """Refuse 16-bit RGB, which Pillow silently reduces to 8 bits; only the raw mode of its tiles shows it."""
    for tile in image.tile if image.mode in (*_GREY_OR_COLOUR, *_WITH_ALPHA) else ():
        stored = tile.args if isinstance(tile.args, str) else tile.args[0] if tile.args else ""
        if ";16" in str(stored):
            raise _too_deep(f"{image.mode};16")


def _too_deep(mode: str) -> ImageRefused:
    return ImageRefused(
        f"has pixels of mode {mode}, not 8 bits", "convert it to 8-bit grey or RGB and rebuild the dataset"
    )


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        if with_alpha.getchannel("A").getextrema() != (255, 255):
            raise ImageRefused("has translucent pixels", "flatten it onto a background and rebuild the dataset")
        # grey with alpha stays exactly grey this way: the luma of equal channels is their value
        return with_alpha.convert("RGB").convert(mode)
    if image.mode in _GREY_OR_COLOUR:
        return image.convert(mode)
    if image.mode in _CONVERTIBLE:
        return image.convert("RGB").convert(mode)
    raise _too_deep(image.mode)
