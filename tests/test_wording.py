"""How messages show what a user wrote."""

import pickle

import pytest

from latentscale.errors import Interruption, UserError
from latentscale.wording import escaped, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"), ("", "''"), (" ", "' '"), ("a ", "'a '"), ("a b", "a b"), ("a\nb", "a\\nb"), ("\n", "\\n"),
        ("\t\r\x00\x1b\x7f\x85", "\\t\\r\\x00\\x1b\\x7f\\x85"), ("\udcff\ud800", "\\udcff\\ud800"),
        ("é ü 日本 😀", "é ü 日本 😀"), ("\u2028\u202e\ufeff", "\\u2028\\u202e\\ufeff"), (True, "true"), (None, "null"),
        ([1, 2], "[1, 2]"), (1.5, "1.5"), ({}, "{}"), ("=", "'='"), ("a=", "'a='")
    ],
)  # fmt: skip
def test_a_value_is_shown_on_one_line(value: object, text: str) -> None:
    assert shown(value) == text
    assert shown(value).isprintable()


def test_a_number_that_python_does_not_print_is_shown() -> None:
    assert shown(10**5000) == "a number of more than 4,300 digits"


def test_a_long_value_is_shortened_in_its_middle() -> None:
    text = shown("ab" * 5000)
    assert len(text) == 201
    assert text.startswith("abab")
    assert text.endswith("abab")
    assert "…" in text


def test_escaping_twice_changes_nothing() -> None:
    text = escaped("a\nb\x1b\\n")
    assert escaped(text) == text


@pytest.mark.parametrize("kind", [UserError, Interruption])
def test_an_error_is_one_line_that_can_be_read(kind: type[UserError]) -> None:
    error = kind("photos/a\nb.png: \x1b[31mred: " + "x" * 10_000 + ": rename it")
    assert str(error).startswith("photos/a\\nb.png: \\x1b[31mred: xxx")
    assert str(error).endswith("xxx: rename it")
    assert len(str(error)) < 1_300
    # workers send their errors to the main process
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
