"""What samples are decoded into: the one place that tells images from points."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscale.decoding.decoder import Decoder, default_decoder
from latentscale.decoding.pillow_decoder import ImageRefused
from latentscale.decoding.points import decode_point
from latentscale.errors import UserError


class ImageArrays:
    """Images are uint8 ``[…, H, W, C]`` while they are decoded, and ``[…, C, H, W]`` from then on.

    Args:
        shape: (C, H, W) wanted.
        decoder: of files.
    """

    def __init__(self, shape: tuple[int, ...], decoder: Decoder) -> None:
        channels, height, width = shape
        self.shape = (height, width, channels)
        self.decode = decoder.into

    def empty(self, *leading: int) -> NDArray[Any]:
        """Room for samples."""
        return np.empty((*leading, *self.shape), dtype=np.uint8)

    @staticmethod
    def mirror(arrays: NDArray[Any], chosen: NDArray[np.bool_]) -> None:
        """Flip some of them left to right, in place."""
        arrays[chosen] = arrays[chosen][..., ::-1, :]

    @staticmethod
    def samples(arrays: NDArray[Any]) -> NDArray[Any]:
        """C moves first; in memory it stays last until the batch is on its device."""
        return np.moveaxis(arrays, -1, -3)


class PointArrays:
    """Points are float32 ``[…, D]``.

    Args:
        shape: (D,).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.decode = decode_point

    def empty(self, *leading: int) -> NDArray[Any]:
        """Room for samples."""
        return np.empty((*leading, *self.shape), dtype=np.float32)

    @staticmethod
    def mirror(arrays: NDArray[Any], chosen: NDArray[np.bool_]) -> None:
        """Points have no left and right."""
        raise UserError("data.horizontal_flip=true: points cannot be mirrored: leave it at false")

    @staticmethod
    def samples(arrays: NDArray[Any]) -> NDArray[Any]:
        """As they are."""
        return arrays


SampleArrays = ImageArrays | PointArrays


def sample_arrays(shape: tuple[int, ...], decoder: Decoder) -> SampleArrays:
    """What samples of a shape, (C, H, W) or (D,), are decoded into."""
    return PointArrays(shape) if is_points(shape) else ImageArrays(shape, decoder)


def is_points(shape: tuple[int, ...]) -> bool:
    """Whether samples are points rather than images."""
    return len(shape) == 1


def sample_bytes(shape: tuple[int, ...]) -> int:
    """What one decoded sample takes in memory."""
    return math.prod(shape) * (np.dtype(np.float32).itemsize if is_points(shape) else 1)


def decode(data: bytes, shape: tuple[int, ...], location: str, decoder: Decoder | None = None) -> NDArray[Any]:
    """Decode one file, see :meth:`Decoder.into` and :func:`decode_point`.

    Args:
        data: the file's bytes.
        shape: (C, H, W) wanted, C one of 1 and 3; (D,) of points.
        where: names the sample in messages.
        decoder: of images; ``auto`` without one.

    Returns:
        uint8 ``[C, H, W]``, or float32 ``[D]``.

    Raises:
        UserError: an unreadable file, another size, translucent pixels, or pixels of more than 8 bits.
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
