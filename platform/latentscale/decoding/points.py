"""Points as members of shards: numpy's own files, of one float32 vector each, read without ever unpickling.

A file must be exactly the vector that dataset.json promises; its header is read with numpy's parser of literals, of a
bounded length, and nothing is allocated by what it says.
"""

import io
import re
from functools import lru_cache

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from latentscale.decoding.pillow_decoder import ImageRefused

POINT_EXTENSION = "npy"

_DTYPE = np.dtype("<f4")
# numpy pads a vector's header to 128 bytes
_MOST_HEADER_BYTES = 1024
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}
# What Python or numpy would warn of, as of numbers that end in L. To turn warnings into errors is no way to refuse it:
# their filters are those of the whole process, and points are decoded in threads.
_NOT_PLAIN = re.compile(rb"\\|[0-9]\s*[A-Za-z_]|[^ -~\n]")


def encode_point(point: NDArray[np.float32]) -> bytes:
    """The ``.npy`` file of a vector ``[D]``."""
    return _header(len(point)) + point.astype(_DTYPE).tobytes()


def decode_point(data: bytes, out: NDArray[np.float32]) -> None:
    """Read one ``.npy`` file.

    Args:
        data: the file's bytes.
        out: float32 ``[D]``; is written to.

    Raises:
        ImageRefused: a damaged or cut off file, another kind or number of values, or one that is not finite.
    """
    header = _header(len(out))
    start = len(header) if data.startswith(header) else _checked_start(data, len(out))
    if len(data) != start + out.nbytes:
        raise _unreadable(f"{len(data) - start} bytes of values instead of {out.nbytes}")
    out[:] = np.frombuffer(data, _DTYPE, len(out), start)
    if not np.isfinite(out).all():
        raise _unreadable("a value that is not finite")


@lru_cache(8)
def _header(numbers: int) -> bytes:
    """How numpy's files of so many float32 begin."""
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": _DTYPE.str, "fortran_order": False, "shape": (numbers,)})
    return stream.getvalue()


def _checked_start(data: bytes, numbers: int) -> int:
    """Where the values begin in a file with a header of another spelling."""
    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        begin = npy.MAGIC_LEN + _LENGTH_BYTES[version]
        length = int.from_bytes(data[npy.MAGIC_LEN : begin], "little")
        if length > _MOST_HEADER_BYTES or _NOT_PLAIN.search(data, begin, begin + length):
            raise ValueError("not plain")
        shape, _, dtype = _HEADERS[version](stream, max_header_size=_MOST_HEADER_BYTES)
    except MemoryError:
        raise
    except Exception as error:  # of damaged headers, numpy's reader raises errors of any kind
        raise _unreadable("its header is damaged, or not numpy's") from error
    if dtype != _DTYPE or shape != (numbers,):
        raise _unreadable(f"{str(dtype)[:40]} of shape {str(list(shape))[:40]} instead of float32 of [{numbers}]")
    return stream.tell()


def _unreadable(words: str) -> ImageRefused:
    return ImageRefused(f"is not a readable point ({words})", "leave it out and build the shards again")
