"""What makes an image of any file one that a network takes: the same when shards are built as when a model inverts."""

import numpy as np
from PIL import Image


def eight_bit_grey(image: Image.Image) -> Image.Image:
    """An image of 16 bits a pixel scaled to 8 and rounded; Pillow's own conversion clips at 255 instead."""
    return Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))


def centre_crop(image: Image.Image, aspect: float) -> Image.Image:
    """The largest centred area of that width / height; where a pixel is left over, it is cut off right or below."""
    width = min(image.width, max(1, round(image.height * aspect)))
    height = min(image.height, max(1, round(image.width / aspect)))
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
