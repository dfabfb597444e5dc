"""Decoding by Pillow: every format, every pixel mode, and the rules by which images become grey or RGB of 8 bits."""

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
    """Why an image cannot be trained on and what to do, in words that follow its name.

    Args:
        reason: why, alone: while shards are built, another thing is to be done.
        remedy: what is to be done where it stands in a shard.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason, remedy)
        self.reason = reason
        self._remedy = remedy

    def __str__(self) -> str:
        return f"{self.reason}: {self._remedy}"


def refuse_size(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Refuse an image of another ``(height, width)``, before its pixels are decoded: so fares a decompression bomb.

    Raises:
        ImageRefused: naming both.
    """
    if size != wanted:
        raise ImageRefused(
            f"is {size[0]}x{size[1]} pixels (height x width), not {wanted[0]}x{wanted[1]}",
            "build the shards again at the wanted resolution",
        )


def unreadable(error: Exception | str) -> ImageRefused:
    """A decoder's own words about damage."""
    words = " ".join(str(error).split()) or type(error).__name__
    return ImageRefused(f"is not a readable image ({words})", "leave it out and build the shards again")


def exif_orientation(exif: bytes | None) -> int:
    """How a photograph is to be turned, 1 … 8 as EXIF numbers them; 1 (upright) where it says nothing readable."""
    if not exif:
        return UPRIGHT
    tags = Image.Exif()
    try:
        tags.load(exif)
        return int(tags.get(_ORIENTATION_TAG, UPRIGHT))
    except Exception:  # whatever is wrong with the description, the image is not the worse for it
        return UPRIGHT


def decode_with_pillow(data: bytes, out: NDArray[np.uint8]) -> None:
    """Decode one image file of any format Pillow reads.

    Args:
        data: the file's bytes.
        out: uint8 ``[H, W, C]`` of the wanted size, C one of 1 and 3; is written to.

    Raises:
        ImageRefused: an unreadable file, another size, translucent pixels, or pixels of more than 8 bits.
    """
    height, width, channels = out.shape
    try:
        if data.startswith(b"\x89PNG"):
            # Pillow takes a damaged PNG whose pixels can still be inflated; verifying spends the image
            with Image.open(io.BytesIO(data)) as image:
                image.verify()
        with Image.open(io.BytesIO(data)) as image:
            turned = exif_orientation(image.info.get("exif"))
            lies = turned in (5, 6, 7, 8)
            refuse_size(image.size if lies else image.size[::-1], (height, width))
            _refuse_deep_colour(image)
            if turned != UPRIGHT:
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
            pixels = np.asarray(_converted(image, _MODE[channels]))
    except UnidentifiedImageError as error:  # whose own words name an object in memory
        raise unreadable("of no format that Pillow knows") from error
    except (ImageRefused, MemoryError):
        raise
    except Exception as error:  # of damaged bytes, Pillow's plugins raise errors of any kind
        raise unreadable(error) from error
    out[:] = pixels.reshape(out.shape)


def _refuse_deep_colour(image: ImageFile.ImageFile) -> None:
    """Pillow gives 16-bit RGB as 8-bit RGB, saying nothing; only how it is stored shows it."""
    for tile in image.tile if image.mode in (*_GREY_OR_COLOUR, *_WITH_ALPHA) else ():
        stored = tile.args if isinstance(tile.args, str) else tile.args[0] if tile.args else ""
        if ";16" in str(stored):
            raise _deep(f"{image.mode};16")


def _deep(mode: str) -> ImageRefused:
    return ImageRefused(
        f"has pixels of mode {mode}, not 8 bits", "convert it to 8-bit grey or RGB and build the shards again"
    )


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        if with_alpha.getchannel("A").getextrema() != (255, 255):
            raise ImageRefused("has translucent pixels", "put it on a background and build the shards again")
        # Grey with alpha stays exactly grey on this way: luma of equal channels is their value.
        return with_alpha.convert("RGB").convert(mode)
    if image.mode in _GREY_OR_COLOUR:
        return image.convert(mode)
    if image.mode in _CONVERTIBLE:
        return image.convert("RGB").convert(mode)
    raise _deep(image.mode)
