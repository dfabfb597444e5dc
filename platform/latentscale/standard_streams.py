"""Standard output and error that end no program: they show what they cannot encode, and outlive their readers."""

import errno
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TextIO

_READER_GONE = frozenset((errno.EPIPE, errno.EIO, errno.EBADF, errno.ESHUTDOWN, errno.ECONNRESET))
"""What writing to a pipe without a reader, or to a terminal that was closed, raises."""


class LastingStream:
    """A text stream whose later output is dropped once nobody can read it; everything else is the stream's own.

    Args:
        stream: the stream.
        drops_all: drop output after any error, such as a full disk, rather than only when the reader has gone.
    """

    def __init__(self, stream: TextIO, drops_all: bool) -> None:
        self._stream, self._drops_all = stream, drops_all

    def write(self, text: str) -> int:
        """As the stream's own; returns the number of characters."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
        except ValueError:  # closed
            self._stream = _nowhere()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """As the stream's own."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """As the stream's own."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)
        except ValueError:  # closed
            self._stream = _nowhere()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _drop(self, error: OSError) -> None:
        if not (self._drops_all or error.errno in _READER_GONE):
            raise OSError(error.errno, error.strerror, "the standard output") from error
        # libraries that write to the descriptor, and what the stream still holds, go the same way
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with suppress(OSError, ValueError):
            os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def make_lasting(drops_all: bool = False) -> None:
    """Let standard output and error of this process show what they cannot encode, and outlive their readers.

    Characters that an output cannot encode are written as ``\\u2026``. A program whose output was closed before it
    started, or whose reader has gone (``| head -2``, a terminal that was closed), goes on and ends as it would have.

    Args:
        drops_all: no error of an output ends the program, not even a full disk: for a training, whose output is not its
            result.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, LastingStream):
            continue
        if stream is None:
            stream = _nowhere()
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, LastingStream(stream, drops_all))


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123
