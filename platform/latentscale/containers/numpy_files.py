"""Arrays in ``.npy`` and ``.npz`` files: memory-mapped where they are stored as they are, never unpickled."""

import os
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from latentscale.containers.file_kinds import pickle_refusal
from latentscale.containers.input_files import file_stamp
from latentscale.errors import UserError
from latentscale.wording import escaped

MAX_ARRAY_BYTES = 2**33
"""A larger compressed array is refused: each process would hold it in memory."""

_KEPT_BYTES = 2**31
_PIECE_BYTES = 2**20
_MAX_HEADER_BYTES = 10_000
_LOCAL_HEADER = struct.Struct("<4s22xHH")


@dataclass(frozen=True)
class StoredArray:
    """One array of a file.

    Attributes:
        path: of the file.
        member: of the ``.npz``; empty for ``.npy``.
        shape: of the array.
        dtype: of the array, as NumPy writes it.
        offset: of the values in the file; None if they are compressed.
        fortran: whether the first axis varies fastest.
        stamp: size and modification time of the file.
    """

    path: Path
    member: str
    shape: tuple[int, ...]
    dtype: str
    offset: int | None
    fortran: bool
    stamp: tuple[int, int]

    @property
    def key(self) -> str:
        """Its name in the file."""
        return self.member.removesuffix(".npy")

    @property
    def bytes(self) -> int:
        """Size of the values."""
        return int(np.prod(self.shape, dtype=object)) * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{self.path} array {escaped(self.key)}" if self.member else str(self.path)

    def load(self) -> NDArray[Any]:
        """The array, memory-mapped if it is not compressed.

        Raises:
            UserError: the file is damaged.
            OSError: it cannot be read.
        """
        if self.offset is None:
            return _inflated(self)
        return _mapped(self)

    def row(self, number: int) -> NDArray[Any]:
        """One row, read from the file as long as it is there in one piece.

        A process that touches a mapping beyond the end of a file, which was cut off since, is killed.

        Raises:
            UserError: the file is damaged, or is not the one that was listed.
            OSError: it cannot be read.
        """
        if self.offset is None:
            return np.asarray(self.load()[number])
        if self.fortran:
            if file_stamp(self.path) != self.stamp:
                raise UserError(f"{self.path} changed while it was read: build again")
            return np.asarray(self.load()[number])
        size = self.bytes // self.shape[0]
        with self.path.open("rb") as stream:
            content = os.pread(stream.fileno(), size, self.offset + number * size)
        if len(content) != size:
            raise UserError(f"{self} is cut off {size - len(content)} bytes before the end of row {number}")
        return np.frombuffer(content, self.dtype).reshape(self.shape[1:])


def list_arrays(path: Path) -> list[StoredArray]:
    """The arrays of a file, each of which is there as a whole.

    Raises:
        UserError: the file is damaged.
    """
    if refusal := pickle_refusal(path):
        raise UserError(f"{escaped(str(path))} is {refusal}")
    with _naming(path):
        if path.suffix.lower() == ".npy":
            with path.open("rb") as stream:
                shape, dtype, fortran = _header(stream, path.name)
                array = StoredArray(path, "", shape, dtype.str, stream.tell(), fortran, file_stamp(path))
            if not dtype.hasobject:
                _check_size(path.name, array.bytes, array.stamp[0] - (array.offset or 0))
            return [array]
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist()]
            for name in names:
                if not name.endswith(".npy"):
                    raise ValueError(f"its member {escaped(name)} is no array")
                if names.count(name) > 1:
                    raise ValueError(f"it holds {escaped(name)} twice")
            return [_member(path, archive, info) for info in archive.infolist()]


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> StoredArray:
    offset = None
    with archive.open(info) as stream:
        shape, dtype, fortran = _header(stream, info.filename)
        array = StoredArray(path, info.filename, shape, dtype.str, None, fortran, file_stamp(path))
        if not dtype.hasobject:
            _check_size(info.filename, array.bytes, info.file_size - stream.tell())
        if info.compress_type == zipfile.ZIP_STORED:
            offset = _content_offset(path, info) + stream.tell()
        elif array.bytes > MAX_ARRAY_BYTES:
            raise ValueError(
                f"{escaped(info.filename)} unpacks to {array.bytes} bytes, more than {MAX_ARRAY_BYTES}: save it "
                "by np.savez, uncompressed"
            )
        # the checksum is compared at the end
        while stream.read(_PIECE_BYTES):
            pass
    return replace(array, offset=offset)


def _header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{escaped(name)} is of version {version[0]}.{version[1]} of the format")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream, _MAX_HEADER_BYTES)
    return shape, dtype, fortran


def _check_size(name: str, promised: int, held: int) -> None:
    if promised != held:
        raise ValueError(f"the header of {escaped(name)} promises {promised} bytes, but it holds {held}")


def _content_offset(path: Path, info: zipfile.ZipInfo) -> int:
    with path.open("rb") as stream:
        stream.seek(info.header_offset)
        magic, name, extra = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
    if magic != b"PK\3\4":
        raise ValueError(f"the header of {escaped(info.filename)} is damaged")
    return int(info.header_offset + _LOCAL_HEADER.size + name + extra)


@lru_cache(maxsize=64)
def _mapped(array: StoredArray) -> NDArray[Any]:
    if not array.bytes:
        return np.empty(array.shape, array.dtype)
    with _naming(array.path):
        order: Literal["F", "C"] = "F" if array.fortran else "C"
        return np.memmap(array.path, array.dtype, "r", array.offset or 0, array.shape, order)


_kept: "OrderedDict[StoredArray, NDArray[Any]]" = OrderedDict()


def _inflated(array: StoredArray) -> NDArray[Any]:
    """A compressed array; each process keeps the last ones, up to 2 GiB."""
    if array in _kept:
        _kept.move_to_end(array)
        return _kept[array]
    while _kept and sum(each.bytes for each in _kept) + array.bytes > _KEPT_BYTES:
        _kept.popitem(last=False)
    with _naming(array.path), zipfile.ZipFile(array.path) as archive, archive.open(array.member) as stream:
        _kept[array] = np.lib.format.read_array(stream, allow_pickle=False, max_header_size=_MAX_HEADER_BYTES)
    return _kept[array]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # NumPy and zipfile raise errors of any kind for damaged bytes
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if " object at 0x" in reason or isinstance(error, SyntaxError | TokenError):
            reason = "the header of an array is damaged"
        raise UserError(f"{path} cannot be read ({reason}): fetch it again or save it anew") from error
