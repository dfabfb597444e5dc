"""What ends a command without a traceback: errors that the user can fix, and Ctrl-C."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from latentscale.wording import escaped, shown, without_passwords

# what is at fault stands at the beginning, the remedy at the end
_LONGEST_MESSAGE = 1_200


class UserError(Exception):
    """An error that the user can fix; the message is one line with the key, file or shard and the remedy.

    Entry points print only the message and exit with status 2. Newlines and control characters, which the user's
    values and names may contain, are escaped, the passwords of URLs are left out, and so is the middle of what is too
    long to be read.

    Attributes:
        shared: whether every process of a node raises it, so that only one process needs to print it.
    """

    shared = False

    def __init__(self, message: str = "") -> None:
        message = without_passwords(escaped(message))
        if len(message) > _LONGEST_MESSAGE:
            half = _LONGEST_MESSAGE // 2
            message = f"{message[:half]} … {message[-half:]}"
        super().__init__(message)

    def on_every_process(self) -> "UserError":
        """The same error, marked as shared."""
        self.shared = True
        return self


class Interruption(UserError):
    """A failure after which the same command may succeed, such as an unreachable remote. Exit status 75."""


def system_error(error: OSError, then: str) -> UserError:
    """A failure of the system at a file that nothing else has explained.

    Args:
        then: what to do once it is fixed.

    Raises:
        OSError: ``error`` itself, if it names no file.
    """
    if error.filename is None:
        raise error
    return UserError(f"{shown(os.fsdecode(error.filename))}: {error.strerror}: fix that, then {then}")


USER_STATUS = 2
INTERRUPTED_STATUS = 75
"""EX_TEMPFAIL of sysexits.h ("the user is invited to retry"): a supervisor may restart the run."""
CTRL_C_STATUS = 130
"""128 + SIGINT, with which a shell reports a command that Ctrl-C ended."""


@contextmanager
def interruptible_imports() -> Iterator[None]:
    """Ctrl-C ends the process at once and silently with status 130, while modules are imported that take a second.

    A KeyboardInterrupt would print a traceback through them, or come out of a compiled module as another error. Only
    imports belong here: the process ends without exit handlers or ``finally``. A program that ignores or handles
    SIGINT, and an import in another thread, stay as they are.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    try:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(CTRL_C_STATUS))
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
