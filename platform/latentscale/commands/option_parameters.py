"""Command-line options generated from option dataclasses."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import Field, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from latentscale.options import flag, from_command_line


def with_options(panels: Iterable[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator for a command that takes option dataclasses: one command-line option for each of their fields.

    Each parameter whose type is a dataclass of :func:`latentscale.options.option` fields is replaced by these fields.
    Dataclasses may share a field of the same declaration. All other parameters stay as they are.

    Args:
        panels: the help panels in their order; the order within a panel is that of the fields.
    """
    order = {panel: place for place, panel in enumerate(panels)}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        kinds = {name: kind for name, kind in hints.items() if is_dataclass(kind) and isinstance(kind, type)}
        plain = [
            parameter.replace(annotation=hints[name])
            for name, parameter in inspect.signature(command).parameters.items()
            if name not in kinds
        ]
        found: dict[str, tuple[Field[Any], inspect.Parameter]] = {}
        for kind in kinds.values():
            types = get_type_hints(kind)
            for spec in fields(kind):
                if spec.name in found and found[spec.name][0].metadata != spec.metadata:
                    raise TypeError(f"{kind.__name__}.{spec.name} is declared twice, and differently")
                found.setdefault(spec.name, (spec, _parameter(spec, types[spec.name])))
        declared = sorted(found.values(), key=lambda one: order[one[0].metadata["panel"]])
        signature = inspect.Signature([*plain, *(parameter for _, parameter in declared)], return_annotation=None)

        @wraps(command)
        def run(**typed: Any) -> None:
            options = {name: from_command_line(kind, typed) for name, kind in kinds.items()}
            command(**{parameter.name: typed[parameter.name] for parameter in plain}, **options)

        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
        return run

    return decorate


def _parameter(spec: Field[Any], kind: Any) -> inspect.Parameter:
    meta, name = spec.metadata, flag(spec)
    default = meta["typed_default"]
    if meta["parse"] is not None:
        kind = type(default)
    # what is off by default needs no option that turns it off
    switch = kind in (bool, bool | None) and default is not False
    declared = typer.Option(
        f"{name}/--no-{name.removeprefix('--')}" if switch else name,
        help=meta["help"],
        metavar=_metavar(spec, kind),
        rich_help_panel=str(meta["panel"]),
        show_default=meta["default_text"] or True,
    )
    return inspect.Parameter(
        spec.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, declared]
    )


def _metavar(spec: Field[Any], kind: Any) -> str | None:
    meta = spec.metadata
    word = meta["metavar"] or "|".join(map(str, meta["choices"])) or meta["unit"].upper()
    low, high = meta["minimum"], meta["maximum"]
    if low is None and high is None:
        return word or None
    bounds = f"[>={low:g}]" if high is None else f"[<={high:g}]" if low is None else f"[{low:g}..{high:g}]"
    return f"{word or 'N'} {bounds}"
