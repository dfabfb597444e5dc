"""Image conversions that building shards and inverting images share."""

import numpy as np
from PIL import Image


def eight_bit_grey(image: Image.Image) -> Image.Image:
    """Scale a 16-bit grey image to 8 bits, rounded; Pillow's own conversion would clip at 255."""
    return Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))


def centre_crop(image: Image.Image, aspect: float) -> Image.Image:
    """Crop the largest centred area with this ratio of width to height; an odd pixel is cut off right or below."""
    width = min(image.width, max(1, round(image.height * aspect)))
    height = min(image.height, max(1, round(image.width / aspect)))
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
