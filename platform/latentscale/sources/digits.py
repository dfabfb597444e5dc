"""Scikit-learn's handwritten digits, the bundled dataset of images."""

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentscale.shards.sample import Sample

SHAPE = (1, 8, 8)
TRAIN_SAMPLES = 1500
LICENCE = (
    "CC BY 4.0. E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (1998), UCI Machine "
    "Learning Repository, "
    "https://doi.org/10.24432/C50P49; the copy of its test set that scikit-learn distributes."
)


def digit_images() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All 1,797 digits ``[N, 8, 8]`` and their labels ``[N]``."""
    from sklearn.datasets import load_digits  # slow to import, and needed once per machine

    data = load_digits()
    # scale ink counts 0 … 16 to the full range of 8 bits
    return np.rint(data.images * (255 / 16)).astype(np.uint8), data.target.astype(np.int64)


def samples(split: str) -> Iterator[Sample]:
    """The digits of a split as PNG files: ``train`` is the first 1,500, ``test`` the other 297."""
    chosen = slice(None, TRAIN_SAMPLES) if split == "train" else slice(TRAIN_SAMPLES, None)
    images, labels = digit_images()
    for image, label in zip(images[chosen], labels[chosen], strict=True):
        yield Sample(_png(image), "png", int(label))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    # Uncompressed, so that neither the bytes nor the fingerprint depend on the machine's zlib.
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=0)
    return buffer.getvalue()
