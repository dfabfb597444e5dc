"""Images stored as rows of an array file: idx, the format of MNIST and its relatives, or NumPy's ``.npy``."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscale.containers.input_files import file_stamp
from latentscale.errors import UserError
from latentscale.sources.listing import Item

_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_ARRAY_BYTES = 2**33
_QMNIST_COLUMNS = 8


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


def load_array(path: Path) -> NDArray[np.uint8]:
    """Load an ``.npy``, idx or gzipped idx file of bytes; the array is read-only.

    Raises:
        UserError: the file is damaged or does not hold bytes.
    """
    with _naming(path):
        return _loaded(path, file_stamp(path))


@lru_cache(maxsize=4)
def _loaded(path: Path, stamp: tuple[int, int]) -> NDArray[np.uint8]:
    """The array of a file with this stamp; each process keeps the last ones."""
    array = np.load(path, mmap_mode="r", allow_pickle=False) if path.suffix == ".npy" else load_idx(path, "u1")
    if array.dtype != np.uint8 or array.ndim == 0:
        raise ValueError(f"it holds {array.dtype}, not bytes")
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    return array


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
        array = load_classes(path)
    if array.shape != (images,):
        raise UserError(f"{path} has labels of shape {list(array.shape)} for {images} images: fetch both again")
    wrong = np.flatnonzero((array < 0) | (array > 9))
    if len(wrong):
        raise UserError(f"{path}: label {wrong[0]} is {array[wrong[0]]}, not a digit from 0 to 9: fetch it again")
    return np.asarray(array).astype(np.uint8)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what NumPy or a reader raises for a damaged file into a UserError that names it; let MemoryError pass."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # NumPy raises errors of any kind for a damaged header
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): fetch it again") from error


def load_idx(path: Path, kind: str = "") -> NDArray[Any]:
    """Load an idx file, gzipped or not; the array is read-only.

    Args:
        path: the file.
        kind: the type of its numbers, as NumPy writes it; empty for any.

    Raises:
        ValueError, OSError, EOFError, zlib.error: the file is damaged.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        header = stream.read(4)
        stored = _IDX_TYPES.get(header[2], "") if len(header) == 4 and header[:2] == b"\0\0" else ""
        if not stored or (kind and stored != kind):
            raise ValueError(f"it is not an idx file{' of bytes' if kind == 'u1' else ''}")
        shape = tuple(int(size) for size in np.frombuffer(stream.read(4 * header[3]), dtype=">u4"))
        number = np.dtype(stored)
        size = int(np.prod(shape, dtype=object)) * number.itemsize if len(shape) == header[3] else -1
        if not 0 <= size <= _MAX_ARRAY_BYTES:
            raise ValueError(f"its header gives the array shape {list(shape)}")
        # one byte more than promised, to detect a file that is too long
        content = stream.read(size + 1)
    if len(content) != size:
        raise ValueError(
            f"its header promises {size} bytes, but it holds {'more' if len(content) > size else len(content)}"
        )
    return np.frombuffer(content, dtype=number).reshape(shape)


def load_classes(path: Path) -> NDArray[np.int64]:
    """The class of each image in an idx file of labels, ``[images]``.

    A file of one column has the class alone. QMNIST's files have eight columns of int32, of which the first is the
    class and the others say who wrote the digit (Yadav and Bottou 2019).

    Raises:
        UserError: the file is damaged, does not hold whole numbers, or has other columns.
    """
    with _naming(path):
        array = load_idx(path)
    if array.dtype.kind not in "iu":
        raise UserError(f"{path} holds {array.dtype.name}, not whole numbers: leave the labels out with --labels none")
    if array.ndim == 2 and array.shape[1] in (1, _QMNIST_COLUMNS):
        array = array[:, 0]
    if array.ndim != 1:
        raise UserError(
            f"{path} has shape {list(array.shape)}, neither [images] nor QMNIST's [images, {_QMNIST_COLUMNS}]: leave "
            "the labels out with --labels none"
        )
    return array.astype(np.int64)
