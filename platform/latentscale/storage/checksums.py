"""CRC-32 of samples, by the fastest installed library, and SHA-256 of files."""

import hashlib
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path


def crc32(data: bytes) -> int:
    """Return the CRC-32 (as in zlib and PNG) of some bytes."""
    return _fastest()(data)


@cache
def _fastest() -> Callable[[bytes], int]:
    try:
        # five times as fast as zlib; imported late, because listing a folder does not need it
        from imagecodecs import deflate_crc32

        deflate_crc32(b"")
    except ImportError:  # missing, or built without libdeflate
        return zlib.crc32
    return deflate_crc32


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
