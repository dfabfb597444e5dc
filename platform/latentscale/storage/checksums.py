"""CRC-32 of samples, by the fastest library that is installed, and SHA-256 of files."""

import hashlib
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path


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


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
