"""Errors that end a command with one line and no traceback."""


class UserError(Exception):
    """An error that the user can fix; the message is one line with the key, file or shard and the remedy.

    Entry points print only the message and exit with status 2.

    Attributes:
        shared: whether every process of a node raises it, so that only one process needs to print it.
    """

    shared = False

    def on_every_process(self) -> "UserError":
        """The same error, marked as shared."""
        self.shared = True
        return self


class Interruption(UserError):
    """A failure after which the same command may succeed, such as an unreachable remote. Exit status 75."""


USER_STATUS = 2
INTERRUPTED_STATUS = 75
"""EX_TEMPFAIL of sysexits.h ("the user is invited to retry"): a supervisor may restart the run."""
