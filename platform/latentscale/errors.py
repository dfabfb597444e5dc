"""What a user can cause and mend: one line, exit status 2, no traceback."""


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
