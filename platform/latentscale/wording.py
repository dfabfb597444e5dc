"""Words of messages: counts with their nouns, and how a value or a name of the user's is shown."""

import re

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_SHOWN_CHARACTERS = 200
# line and paragraph separators, and marks that change the direction of what follows
_MISLEADING = frozenset("\u2028\u2029\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
# a password may hold an @ of its own; a path made of a URL has one slash
_PASSWORD = re.compile(r"(:/{1,2}[^\s/@:]{0,200}:)[^\s/]*@")


def counted(count: int, one: str, many: str = "") -> str:
    """``1 image``, ``2 images``; ``many`` is the plural where adding an s is not enough."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def escaped(text: str) -> str:
    r"""One line of printable characters: newlines, control characters and lone surrogates become ``\n``, ``\x1b`` ….

    What is printable stays as it is, so escaping twice changes nothing.
    """
    if text.isprintable():
        return text
    return "".join(character if _is_plain(character) else _escape(character) for character in text)


def without_passwords(text: str) -> str:
    """The text with ``…`` for the password in every URL, as in ``http://user:password@host``."""
    return _PASSWORD.sub(r"\1…@", text) if "@" in text else text


def shown(value: object) -> str:
    """A value or name of the user's in a message: on one line, in quotes where it is empty or has spaces at an end.

    A long value is shortened in the middle. Booleans and empty values are written as the command line takes them.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        text = str(value)
    except ValueError:  # more digits than Python converts
        return "a number of more than 4,300 digits"
    if len(text) > _SHOWN_CHARACTERS:
        half = _SHOWN_CHARACTERS // 2
        text = f"{text[:half]}…{text[-half:]}"
    text = escaped(text)
    return f"'{text}'" if not text or text != text.strip() or text.endswith("=") else text


def _is_plain(character: str) -> bool:
    # a space of any kind is not printable to Python, but belongs to names
    return character.isprintable() or (character.isspace() and character not in _MISLEADING and ord(character) >= 0xA0)


def _escape(character: str) -> str:
    return _ESCAPES.get(character) or character.encode("unicode_escape").decode("ascii")
