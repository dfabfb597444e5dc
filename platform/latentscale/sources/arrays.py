"""Images stored as rows of an array file: idx, the format of MNIST and its relatives, or NumPy's ``.npy``."""

import gzip
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscale.errors import UserError
from latentscale.sources.listing import Item

_IDX_UINT8 = 0x08
_IDX_INTEGERS: dict[int, np.dtype[Any]] = {
    _IDX_UINT8: np.dtype("u1"), 0x09: np.dtype("i1"), 0x0B: np.dtype(">i2"), 0x0C: np.dtype(">i4"),
}  # fmt: skip
_BYTES = {_IDX_UINT8: _IDX_INTEGERS[_IDX_UINT8]}
_MAX_ARRAY_BYTES = 2**33


@dataclass(frozen=True)
class Row:
    """The place of an image: the array file, the row number, and whether the image is stored transposed."""

    file: str
    number: int
    transposed: bool = False


@dataclass(frozen=True)
class ArrayReader:
    """Reads rows of the arrays in a folder; each process loads an array once."""

    root: Path

    def read(self, item: Item) -> NDArray[np.uint8]:
        row: Row = item.place
        image = load_array(self.root / row.file)[row.number]
        return image.T if row.transposed else image


@lru_cache(maxsize=4)
def load_array(path: Path) -> NDArray[np.uint8]:
    """Load an ``.npy``, idx or gzipped idx file of bytes; the array is read-only.

    Raises:
        UserError: the file is damaged or does not hold bytes.
    """
    with _naming(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False) if path.suffix == ".npy" else _idx(path)
        if array.dtype != np.uint8 or array.ndim == 0:
            raise ValueError(f"it holds {array.dtype}, not bytes")
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    return array


def load_numbers(path: Path) -> NDArray[np.integer[Any]]:
    """Load an idx file of whole numbers, gzipped or not: labels, or QMNIST's rows whose first column is the class.

    Returns:
        ``[samples]``.

    Raises:
        UserError: the file is damaged or does not hold whole numbers.
    """
    with _naming(path):
        numbers = _idx(path, _IDX_INTEGERS)
        if numbers.ndim == 2 and numbers.shape[1]:
            numbers = numbers[:, 0]
        if numbers.ndim != 1:
            raise ValueError(f"it has the shape {list(numbers.shape)}, not one number per image")
    return numbers


def load_digits(path: Path, images: int) -> NDArray[np.uint8]:
    """The labels 0 … 9 of an ``.npy`` or idx file, ``[images]``.

    Raises:
        UserError: the file is damaged, or does not hold one label 0 … 9 per image.
    """
    if path.suffix == ".npy":
        with _naming(path):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if array.dtype.kind not in "iu":
                raise ValueError(f"it holds {array.dtype}, not whole numbers")
    else:
        array = load_array(path)
    if array.shape != (images,):
        raise UserError(f"{path} has labels of shape {list(array.shape)} for {images} images: fetch both again")
    wrong = np.flatnonzero((array < 0) | (array > 9))
    if len(wrong):
        raise UserError(f"{path}: label {wrong[0]} is {array[wrong[0]]}, not a digit from 0 to 9: fetch it again")
    return np.asarray(array).astype(np.uint8)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # NumPy raises errors of any kind for a damaged header
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): fetch it again") from error


def _idx(path: Path, types: Mapping[int, np.dtype[Any]] = _BYTES) -> NDArray[Any]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        header = stream.read(4)
        if len(header) < 4 or header[:2] != b"\0\0" or header[2] not in types:
            raise ValueError(f"it is not an idx file of {'bytes' if types is _BYTES else 'whole numbers'}")
        shape = tuple(int(size) for size in np.frombuffer(stream.read(4 * header[3]), dtype=">u4"))
        kind = types[header[2]]
        size = int(np.prod(shape, dtype=object)) * kind.itemsize if len(shape) == header[3] else -1
        if not 0 <= size <= _MAX_ARRAY_BYTES:
            raise ValueError(f"its header gives the array shape {list(shape)}")
        # one byte more than promised, to detect a file that is too long
        content = stream.read(size + 1)
    if len(content) != size:
        raise ValueError(
            f"its header promises {size} bytes, but it holds {'more' if len(content) > size else len(content)}"
        )
    return np.frombuffer(content, dtype=kind).reshape(shape)
