"""Points in shards: ``.npy`` files with one float32 vector each, read without unpickling.

A file must hold exactly the vector that dataset.json describes. Its header has a bounded length and is parsed as Python
literals by numpy. No memory is allocated from sizes in the header.
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
# numpy pads the header of a vector to 128 bytes
_MAX_HEADER_BYTES = 1024
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}
# Syntax for which Python or numpy would emit a warning, such as numbers that end in L. Turning warnings into errors is
# no alternative: warning filters belong to the whole process, and points are decoded in threads.
_NOT_PLAIN = re.compile(rb"\\|[0-9]\s*[A-Za-z_]|[^ -~\n]")


def encode_point(point: NDArray[np.float32]) -> bytes:
    """Return the ``.npy`` file of a vector ``[D]``."""
    return _header(len(point)) + point.astype(_DTYPE).tobytes()


def decode_point(data: bytes, out: NDArray[np.float32]) -> None:
    """Read one ``.npy`` file.

    Args:
        data: the file's bytes.
        out: float32 ``[D]``; receives the values.

    Raises:
        ImageRefused: the file is damaged or truncated, has another type or number of values, or a value is not finite.
    """
    header = _header(len(out))
    start = len(header) if data.startswith(header) else _checked_start(data, len(out))
    if len(data) != start + out.nbytes:
        raise _unreadable(f"{len(data) - start} bytes of values instead of {out.nbytes}")
    out[:] = np.frombuffer(data, _DTYPE, len(out), start)
    if not np.isfinite(out).all():
        raise _unreadable("a value is not finite")


@lru_cache(8)
def _header(numbers: int) -> bytes:
    """Return the header of numpy's file of a float32 vector of this length."""
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": _DTYPE.str, "fortran_order": False, "shape": (numbers,)})
    return stream.getvalue()


def _checked_start(data: bytes, numbers: int) -> int:
    """Check a header that is not written as numpy does; returns the offset of the values."""
    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        begin = npy.MAGIC_LEN + _LENGTH_BYTES[version]
        length = int.from_bytes(data[npy.MAGIC_LEN : begin], "little")
        if length > _MAX_HEADER_BYTES or _NOT_PLAIN.search(data, begin, begin + length):
            raise ValueError("not plain")
        shape, _, dtype = _HEADERS[version](stream, max_header_size=_MAX_HEADER_BYTES)
    except MemoryError:
        raise
    except Exception as error:  # on damaged headers, numpy's reader raises errors of any type
        raise _unreadable("its header is damaged, or not a .npy header") from error
    if dtype != _DTYPE or shape != (numbers,):
        raise _unreadable(f"{str(dtype)[:40]} of shape {str(list(shape))[:40]} instead of float32 of [{numbers}]")
    return stream.tell()


def _unreadable(reason: str) -> ImageRefused:
    return ImageRefused(f"is not a readable point ({reason})", "leave it out and rebuild the dataset")
