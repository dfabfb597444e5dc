"""A stream that is read once, forwards, offered to tarfile as a file; what passes is counted and hashed."""

import hashlib
import io
from typing import Any, BinaryIO

_PIECE_BYTES = 2**20
# tarfile goes back by a byte before each header, and by a block where it has found the end
_KEPT_BYTES = 2**12


class SequentialFile(io.RawIOBase):
    """Reads a stream as tarfile does: on and on, with steps back of some blocks at most.

    A size that a damaged header claims costs no memory: no more is held than really comes.

    Args:
        stream: at its beginning.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self._passed = 0
        self._position = 0
        self._kept = b""

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """As far as tarfile needs it."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move on, reading what lies between, or back within what is kept.

        Raises:
            OSError: further back.
        """
        if whence == io.SEEK_CUR:
            offset += self._position
        if whence == io.SEEK_END or offset < self._passed - len(self._kept):
            raise io.UnsupportedOperation("a stream goes forwards only")
        self._position = min(offset, self._passed)
        while self._position < offset and self._take(min(offset - self._position, _PIECE_BYTES)):
            pass
        return self._position

    def read(self, size: int = -1) -> bytes:
        """So many bytes; fewer at the end only."""
        pieces, left = [], size
        while left and (piece := self._take(_PIECE_BYTES if left < 0 else min(left, _PIECE_BYTES))):
            pieces.append(piece)
            left -= len(piece) if left > 0 else 0
        return b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        """See RawIOBase."""
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def finish(self) -> tuple[int, str]:
        """Read to the end; the number of all bytes and their SHA-256 in hexadecimal."""
        self._position = self._passed
        while self._take(_PIECE_BYTES):
            pass
        return self._passed, self._digest.hexdigest()

    def _take(self, size: int) -> bytes:
        if behind := self._passed - self._position:
            start = len(self._kept) - behind
            piece = self._kept[start : start + size]
        else:
            piece = self._stream.read(size)
            self._digest.update(piece)
            self._passed += len(piece)
            self._kept = piece[-_KEPT_BYTES:] if len(piece) >= _KEPT_BYTES else (self._kept + piece)[-_KEPT_BYTES:]
        self._position += len(piece)
        return piece
