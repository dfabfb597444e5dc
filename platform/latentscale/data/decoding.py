"""From the bytes of an image file to uint8 pixels of the wanted shape."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentscale.errors import UserError

_GREY_OR_COLOUR = ("L", "RGB")
_CONVERTIBLE = ("1", "P", "CMYK", "YCbCr")
_WITH_ALPHA = ("LA", "PA", "La", "RGBA", "RGBa")
_MODE = {1: "L", 3: "RGB"}


def decode(data: bytes, shape: tuple[int, int, int], where: str) -> NDArray[np.uint8]:
    """Decode one image file of any format Pillow reads.

    Grey becomes RGB by repetition and RGB becomes grey by ITU-R 601 luma where ``shape`` asks for it;
    palette, bilevel, CMYK and YCbCr images are converted; an opaque alpha channel is dropped. EXIF
    orientation is not applied: shards hold upright images.

    Args:
        data: the file's bytes.
        shape: (C, H, W) wanted, C one of 1 and 3.
        where: names the image in messages.

    Returns:
        uint8 ``[C, H, W]``.

    Raises:
        UserError: an unreadable file, another size, translucent pixels, or pixels of more than 8 bits.
    """
    channels, height, width = shape
    if channels not in _MODE:
        raise UserError(f"{where} cannot be decoded to {channels} channels: images have 1 or 3")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.size != (width, height):
                raise UserError(
                    f"{where} is {image.size[1]}x{image.size[0]} pixels (height x width), not "
                    f"{height}x{width}: write the shards again at the wanted resolution"
                )
            pixels = np.asarray(_converted(image, _MODE[channels], where))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{where} is not a readable image ({error}): leave it out and write the shards again"
        ) from error
    return pixels[np.newaxis] if channels == 1 else pixels.transpose(2, 0, 1)


def _converted(image: Image.Image, mode: str, where: str) -> Image.Image:
    if image.mode == mode:
        return image
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        if with_alpha.getchannel("A").getextrema() != (255, 255):
            raise UserError(f"{where} has translucent pixels: put it on a background and write the shards again")
        # Grey with alpha stays exactly grey on this way: luma of equal channels is their value.
        return with_alpha.convert("RGB").convert(mode)
    if image.mode in _GREY_OR_COLOUR:
        return image.convert(mode)
    if image.mode in _CONVERTIBLE:
        return image.convert("RGB").convert(mode)
    raise UserError(
        f"{where} has pixels of mode {image.mode}, not 8 bits: convert it to 8-bit grey or RGB and write "
        "the shards again"
    )
