"""Errors that end a run with one line and no traceback."""


class UserError(Exception):
    """An error that the user must fix (in a key, a file, a shard), with the remedy in one line.

    Entry points print only the message and exit with status 2.

    Attributes:
        shared: whether every process of a node raises it, so that only one of them needs to print it.
    """

    shared = False

    def on_every_process(self) -> "UserError":
        """The same error, marked as shared."""
        self.shared = True
        return self


class Interruption(UserError):
    """A failure after which the same command may succeed: a process, a remote or a disk was gone. Exit status 75."""


USER_STATUS = 2
INTERRUPTED_STATUS = 75
"""EX_TEMPFAIL of sysexits.h, "the user is invited to retry": whoever started the run may restart it."""
