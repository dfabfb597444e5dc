"""Small images that carry a number, by which a test knows which sample it was given."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from latentscale.shards.sample import Sample

SHAPE = (1, 4, 4)
LABELS = ["zero", "one", "two"]


def numbered_png(number: int) -> bytes:
    """A 4×4 image whose first two pixels spell its number."""
    pixels = np.full((4, 4), 200, dtype=np.uint8)
    pixels[0, 0], pixels[0, 1] = divmod(number, 256)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def numbers(images: object) -> list[int]:
    """The numbers of a batch of numbered images, uint8 ``[n, 1, 4, 4]``."""
    array = np.asarray(images).astype(int)
    return (array[:, 0, 0, 0] * 256 + array[:, 0, 0, 1]).tolist()


def numbered_samples(count: int) -> Iterator[Sample]:
    for number in range(count):
        yield Sample(numbered_png(number), "png", number % len(LABELS))
