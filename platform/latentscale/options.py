"""Command-line options as dataclass fields: type, default, help, range and help panel are declared once, here.

The command line (``latentscale.commands.option_parameters``), the checks and the class's documentation come from them.
"""

from collections.abc import Callable, Mapping
from dataclasses import Field, field, fields
from typing import Any, TypeVar

from latentscale.errors import UserError
from latentscale.settings import allowed_in_words, is_allowed, setting
from latentscale.wording import shown

T = TypeVar("T")


def option(
    default: Any,
    help: str,
    *,
    panel: str,
    name: str = "",
    metavar: str = "",
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] | tuple[int, ...] = (),
    default_text: str = "",
    parse: Callable[[Any], Any] | None = None,
) -> Any:
    """A dataclass field that is also a command-line option.

    Args:
        default: as typed on the command line. It is always allowed, whatever the range is.
        help: one or more sentences.
        panel: title of the help's panel that lists it.
        name: of the option without its dashes; by default the field's name.
        metavar: the value in the help; by default the choices or the unit.
        unit: of the value as typed, e.g. ``pixels``.
        minimum, maximum: inclusive bounds of the value as typed.
        choices: the allowed values.
        default_text: what the default means, where its value does not say it.
        parse: makes the field's value of what is typed; the field's type is then its result.
    """
    declared = setting(default, help, unit=unit, minimum=minimum, maximum=maximum, choices=choices)
    metadata = {
        **declared.metadata,
        "panel": panel,
        "name": name,
        "metavar": metavar,
        "default_text": default_text,
        "typed_default": default,
        "parse": parse,
    }
    return field(default=default if parse is None else parse(default), metadata=metadata)


def flag(spec: Field[Any]) -> str:
    """The option of a field, with its dashes: ``--patch-size``."""
    return "--" + (spec.metadata["name"] or spec.name).replace("_", "-")


def given(options: Any) -> list[Field[Any]]:
    """The fields that are not at their defaults."""
    return [spec for spec in fields(options) if getattr(options, spec.name) != spec.default]


def check_options(options: Any) -> None:
    """Check the ranges of all fields whose values are as typed; the others are checked when they are parsed.

    Raises:
        UserError: naming the option, its value and the allowed range.
    """
    for spec in fields(options):
        if spec.metadata["parse"] is None:
            _check(spec, getattr(options, spec.name))


def from_command_line(kind: type[T], typed: Mapping[str, Any]) -> T:
    """Options from the values as typed, by field name; others in ``typed`` are ignored.

    Raises:
        UserError: a value is out of range or cannot be parsed; naming the option.
    """
    values = {}
    for spec in fields(kind):  # type: ignore[arg-type]
        value, parse = typed[spec.name], spec.metadata["parse"]
        _check(spec, value)
        values[spec.name] = value if parse is None else parse(value)
    return kind(**values)


def documented(kind: type[T]) -> type[T]:
    """A class decorator: the options' help becomes the attributes' documentation."""
    lines = [f"    {spec.name}: {spec.metadata['help']}" for spec in fields(kind)]  # type: ignore[arg-type]
    kind.__doc__ = "\n".join([(kind.__doc__ or "").rstrip(), "", "Attributes:", *lines])
    return kind


def _check(spec: Field[Any], value: Any) -> None:
    if value == spec.metadata["typed_default"] or is_allowed(spec, value):
        return
    allowed = f"{allowed_in_words(spec, value)} {spec.metadata['unit']}".strip()
    raise UserError(f"{flag(spec)} {shown(value)} is not allowed: it must be {allowed}")
