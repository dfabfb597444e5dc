"""What ends a run in one line, without a traceback."""


class UserError(Exception):
    """A mistake in what the user gave (a key, a file, a shard), with its remedy in one line.

    Entry points print the message alone and exit with status 2.

    Attributes:
        shared: whether every process of a node raises it, so that one of them need say it.
    """

    shared = False

    def on_every_process(self) -> "UserError":
        """The same error, marked as shared."""
        self.shared = True
        return self


class Interruption(UserError):
    """What the same command may well survive: a process, a remote or a disk that was gone. Exit status 75."""


USER_STATUS = 2
INTERRUPTED_STATUS = 75
"""EX_TEMPFAIL of sysexits.h, "the user is invited to retry": what started the run may start it again."""
