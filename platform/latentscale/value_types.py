"""The types of settings: a value as its key's type, with nothing cut off, rounded or guessed."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_args

from latentscale.errors import UserError
from latentscale.wording import shown

_Settings = TypeVar("_Settings")
_TRUE, _FALSE = ("true", "yes", "on", "y", "1"), ("false", "no", "off", "n", "0")
_KINDS = {int: "an integer", float: "a number", bool: "true or false", str: "text"}


def converted(what: str, kind: Any, value: Any) -> Any:
    """A value as its key's type; nothing is cut off, rounded or guessed.

    Args:
        what: the source, the key and the value.
        kind: the type of the key: int, float, bool, str, ``list[int]`` or ``list[float]``.

    Raises:
        UserError: the value is of another type.
    """
    try:
        if kind in _KINDS:
            return _CONVERSIONS[kind](value)
        if not isinstance(value, list):
            raise TypeError
        (element,) = get_args(kind)
        return [_CONVERSIONS[element](each) for each in value]
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{what}: it must be {kind_in_words(kind)}{_because(kind, value)}") from None


def kind_in_words(kind: Any) -> str:
    """What a value of a type must be, for messages."""
    if kind in _KINDS:
        return _KINDS[kind]
    return f"a list of {'integers' if int in get_args(kind) else 'numbers'}, such as [64,128]"


def settings_of(kind: type[_Settings], values: Mapping[str, Any], prefix: str) -> _Settings:
    """A dataclass of settings from what a file holds.

    Args:
        kind: the dataclass.
        values: by name; what is missing has its default.
        prefix: of the names, for messages.

    Raises:
        UserError: a value is of another type, or there is no setting of its name.
    """
    types = {spec.name: spec.type for spec in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(values.keys() - types.keys()):
        raise UserError(f"{prefix}{shown(unknown[0])} is no setting of this release")
    return kind(
        **{name: converted(f"{prefix}{name}={shown(value)}", types[name], value) for name, value in values.items()}
    )


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    return float(value)


def _flag(value: Any) -> bool:
    word = str(value).lower() if isinstance(value, bool | int | str) else ""
    if word not in (*_TRUE, *_FALSE):
        raise ValueError
    return word in _TRUE


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    text = str(value)
    # a lone surrogate, with which Python passes on bytes that are not UTF-8, raises here
    text.encode()
    if "\0" in text:
        raise ValueError
    return text


_CONVERSIONS: dict[Any, Any] = {int: _integer, float: _number, bool: _flag, str: _text}


def _because(kind: Any, value: Any) -> str:
    if kind is str and isinstance(value, str):
        return " in UTF-8 without the character NUL"
    if kind is str:
        return ": put it in quotes" if isinstance(value, bool) else ""
    return ""
