"""What a user can cause and mend: one line, exit status 2, no traceback."""


class UserError(Exception):
    """A mistake in what the user gave (a key, a file, a shard), with its remedy in one line.

    Entry points print the message alone and exit with status 2.
    """
