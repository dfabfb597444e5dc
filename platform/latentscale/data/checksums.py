"""CRC-32 of a sample's bytes, by the fastest library that is installed."""

import zlib
from collections.abc import Callable
from functools import cache


def crc32(data: bytes) -> int:
    """The CRC-32 of zlib and PNG."""
    return _fastest()(data)


@cache
def _fastest() -> Callable[[bytes], int]:
    try:
        # a fifth of zlib's time; imported late, for who only lists a folder needs none
        from imagecodecs import deflate_crc32

        deflate_crc32(b"")
    except ImportError:  # or it was built without libdeflate
        return zlib.crc32
    return deflate_crc32
