"""Small images with photographic content, the same on every machine: crops of scikit-learn's two photographs."""

import io
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@cache
def _originals() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(image) for image in load_sample_images().images]


def photograph(number: int, size: int) -> NDArray[np.uint8]:
    """Crop ``number`` of side 256 … 427, a quarter to all of the photograph's height, resized: ``[size, size, 3]``."""
    random = np.random.default_rng(number)
    original = _originals()[number % 2]
    side = int(random.integers(256, min(original.size) + 1))
    left, top = (int(random.integers(0, length - side + 1)) for length in original.size)
    crop = original.crop((left, top, left + side, top + side))
    return np.asarray(crop.resize((size, size), Image.Resampling.LANCZOS))


def encode(pixels: NDArray[np.uint8], extension: str) -> bytes:
    """A file as in datasets: PNG with the usual compression, or JPEG of quality 90 with 4:2:0 chroma."""
    buffer = io.BytesIO()
    if extension == "png":
        Image.fromarray(pixels).save(buffer, format="PNG")
    else:
        Image.fromarray(pixels).save(buffer, format="JPEG", quality=90, subsampling="4:2:0")
    return buffer.getvalue()
