"""The arrays that samples are decoded into, for images and for points."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscale.decoding.decoder import Decoder, default_decoder
from latentscale.decoding.pillow_decoder import ImageRefused
from latentscale.decoding.points import decode_point
from latentscale.errors import UserError


class ImageArrays:
    """Images: uint8 ``[…, H, W, C]`` while they are decoded, ``[…, C, H, W]`` afterwards.

    Args:
        shape: the expected (C, H, W).
        decoder: decodes the files.
    """

    def __init__(self, shape: tuple[int, ...], decoder: Decoder) -> None:
        channels, height, width = shape
        self.shape = (height, width, channels)
        self.decode = decoder.into

    def empty(self, *leading: int) -> NDArray[Any]:
        """Allocate samples, ``[*leading, …]``."""
        return np.empty((*leading, *self.shape), dtype=np.uint8)

    @staticmethod
    def mirror(arrays: NDArray[Any], chosen: NDArray[np.bool_]) -> None:
        """Flip the chosen images left to right, in place; ``chosen`` is bool ``[…]``."""
        arrays[chosen] = arrays[chosen][..., ::-1, :]

    @staticmethod
    def samples(arrays: NDArray[Any]) -> NDArray[Any]:
        """Return a ``[…, C, H, W]`` view; in memory C stays last until the batch is on its device."""
        return np.moveaxis(arrays, -1, -3)


class PointArrays:
    """Points: float32 ``[…, D]``.

    Args:
        shape: the expected (D,).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.decode = decode_point

    def empty(self, *leading: int) -> NDArray[Any]:
        """Allocate samples, ``[*leading, …]``."""
        return np.empty((*leading, *self.shape), dtype=np.float32)

    @staticmethod
    def mirror(arrays: NDArray[Any], chosen: NDArray[np.bool_]) -> None:
        """Raise UserError: points cannot be mirrored."""
        raise UserError("data.horizontal_flip=true is not possible with points: set it to false")

    @staticmethod
    def samples(arrays: NDArray[Any]) -> NDArray[Any]:
        """Return the arrays unchanged."""
        return arrays


SampleArrays = ImageArrays | PointArrays


def sample_arrays(shape: tuple[int, ...], decoder: Decoder) -> SampleArrays:
    """Return the arrays for samples of a shape, (C, H, W) or (D,)."""
    return PointArrays(shape) if is_points(shape) else ImageArrays(shape, decoder)


def is_points(shape: tuple[int, ...]) -> bool:
    """Return whether samples of this shape are points rather than images."""
    return len(shape) == 1


def sample_bytes(shape: tuple[int, ...]) -> int:
    """Return the size of one decoded sample in bytes."""
    return math.prod(shape) * (np.dtype(np.float32).itemsize if is_points(shape) else 1)


def decode(data: bytes, shape: tuple[int, ...], location: str, decoder: Decoder | None = None) -> NDArray[Any]:
    """Decode one file; see :meth:`Decoder.into` and :func:`decode_point`.

    Args:
        data: the file's bytes.
        shape: the expected (C, H, W), C is 1 or 3; or (D,) for points.
        location: the sample's name in messages.
        decoder: decodes images; ``auto`` if None.

    Returns:
        uint8 ``[C, H, W]``, or float32 ``[D]``.

    Raises:
        UserError: the file is unreadable, has another size, translucent pixels, or more than 8 bits per channel.
    """
    if not is_points(shape) and shape[0] not in (1, 3):
        raise UserError(f"{location} cannot be decoded to {shape[0]} channels: images have 1 or 3")
    arrays = sample_arrays(shape, decoder or default_decoder())
    sample = arrays.empty()
    try:
        arrays.decode(data, sample)
    except ImageRefused as refusal:
        raise UserError(f"{location} {refusal}") from refusal
    return arrays.samples(sample)
