"""The bundled dataset: scikit-learn's handwritten digits, written to shards on first use."""

import io
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from latentscale.shards.dataset_writer import ShardsExist, write_shards
from latentscale.shards.sample import Sample
from latentscale.storage.dataset_files import DATASET_FILE
from latentscale.storage.user_cache import cache_folder

SHAPE = (1, 8, 8)
TRAIN_SAMPLES = 1500
LICENCE = (
    "CC BY 4.0. E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (1998), UCI Machine "
    "Learning Repository, "
    "https://doi.org/10.24432/C50P49; the copy of its test set that scikit-learn distributes."
)

# A digit takes two members of 1,024 bytes each: five shards of 300 for training, so that the order has
# something to permute.
_SHARD_BYTES = 300 * 2048


def digits_folder(split: str) -> Path:
    """The folder of a split's shards, written where absent.

    ``train`` is the first 1,500 digits, ``test`` the other 297. Several processes may ask at once: each
    writes aside, the first to finish is kept.

    Raises:
        UserError: the cache folder cannot be written; set ``LATENTSCALE_CACHE``.
    """
    folder = cache_folder() / "digits-v1" / split
    if not (folder / DATASET_FILE).exists():
        with suppress(ShardsExist):
            write_shards(
                _samples(split),
                folder,
                name="digits",
                shape=SHAPE,
                labels=[str(digit) for digit in range(10)],
                licence=LICENCE,
                shard_bytes=_SHARD_BYTES,
            )
    return folder


def digit_images() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All 1,797 digits ``[N, 8, 8]`` and what they show ``[N]``."""
    from sklearn.datasets import load_digits  # slow to import, and needed once a machine

    data = load_digits()
    # Ink counts 0 … 16 become the full range of 8 bits.
    return np.rint(data.images * (255 / 16)).astype(np.uint8), data.target.astype(np.int64)


def _samples(split: str) -> Iterator[Sample]:
    chosen = slice(None, TRAIN_SAMPLES) if split == "train" else slice(TRAIN_SAMPLES, None)
    images, labels = digit_images()
    for image, label in zip(images[chosen], labels[chosen], strict=True):
        yield Sample(_png(image), "png", int(label))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    # Uncompressed, so that the bytes (and the fingerprint) do not depend on the machine's zlib.
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=0)
    return buffer.getvalue()
