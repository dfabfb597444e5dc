"""Presents a forward-only stream to tarfile as a file, and counts and hashes what is read."""

import hashlib
import io
from typing import Any, BinaryIO

_PIECE_BYTES = 2**20
# tarfile steps back one byte before each header, and one block at the end of the archive
_BUFFER_BYTES = 2**12


class SequentialFile(io.RawIOBase):
    """Reads a stream forwards; seeking back is possible by at most 4 KiB, which is all tarfile needs.

    Memory use is bounded by what the stream delivers, not by a size that a damaged header claims.

    Args:
        stream: a stream at its beginning.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self._read_bytes = 0
        self._position = 0
        self._buffer = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True: seeking works as far as tarfile needs it."""
        return True

    def tell(self) -> int:
        """Return the current position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seek forwards by reading, or backwards within the buffer.

        Raises:
            OSError: the position is before the buffer.
        """
        if whence == io.SEEK_CUR:
            offset += self._position
        if whence == io.SEEK_END or offset < self._read_bytes - len(self._buffer):
            raise io.UnsupportedOperation("cannot seek back beyond the buffer")
        self._position = min(offset, self._read_bytes)
        while self._position < offset and self._read_piece(min(offset - self._position, _PIECE_BYTES)):
            pass
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Read ``size`` bytes, fewer only at the end of the stream; all if negative."""
        pieces, left = [], size
        while left and (piece := self._read_piece(_PIECE_BYTES if left < 0 else min(left, _PIECE_BYTES))):
            pieces.append(piece)
            left -= len(piece) if left > 0 else 0
        return b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        """See RawIOBase."""
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def finish(self) -> tuple[int, str]:
        """Read to the end; returns the total size in bytes and the SHA-256 in hexadecimal."""
        self._position = self._read_bytes
        while self._read_piece(_PIECE_BYTES):
            pass
        return self._read_bytes, self._digest.hexdigest()

    def _read_piece(self, size: int) -> bytes:
        if behind := self._read_bytes - self._position:
            start = len(self._buffer) - behind
            piece = self._buffer[start : start + size]
        else:
            piece = self._stream.read(size)
            self._digest.update(piece)
            self._read_bytes += len(piece)
            self._buffer = (
                piece[-_BUFFER_BYTES:] if len(piece) >= _BUFFER_BYTES else (self._buffer + piece)[-_BUFFER_BYTES:]
            )
        self._position += len(piece)
        return piece
