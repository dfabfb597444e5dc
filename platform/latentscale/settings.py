"""Typed settings: a dataclass field with its help line, unit and allowed range."""

import math
from dataclasses import MISSING, Field, field, fields
from typing import Any

from latentscale.errors import UserError
from latentscale.wording import shown

_SMALLEST_FLOAT32, _LARGEST_FLOAT32 = 2.0**-126, (2 - 2.0**-23) * 2.0**127
LONGEST_SECONDS = 2_000_000
"""23 days. The system's waits count milliseconds in 32 bits, and fail for more."""


def setting(
    default: Any = MISSING,
    help: str = "",
    *,
    factory: Any = MISSING,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] | tuple[int, ...] = (),
    may_change: bool = False,
    is_path: bool = False,
    may_be_url: bool = False,
) -> Any:
    """A dataclass field with the metadata for `--help`, validation and resuming.

    Args:
        default, factory: as in ``dataclasses.field``.
        help: one line.
        unit: of the value, e.g. ``steps`` or ``images``.
        minimum, maximum: inclusive bounds; for a list, of each element.
        above: exclusive lower bound.
        choices: the allowed values.
        may_change: whether a resumed run may have a different value.
        is_path: whether it names a folder or file; ``~`` at its beginning is the home folder.
        may_be_url: whether it may name one that is elsewhere, by a URL.
    """
    metadata = {
        "help": help,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "choices": choices,
        "may_change": may_change,
        "is_path": is_path,
        "may_be_url": may_be_url,
    }
    if factory is not MISSING:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def allowed_range(spec: Field[Any]) -> str:
    """The allowed values of a field in words; empty if any value is allowed."""
    meta = spec.metadata
    if meta.get("choices"):
        return "one of " + ", ".join(map(str, meta["choices"]))
    bounds = []
    if meta.get("above") is not None:
        bounds.append(f"> {meta['above']:g}")
    if meta.get("minimum") is not None:
        bounds.append(f">= {meta['minimum']:g}")
    if meta.get("maximum") is not None:
        bounds.append(f"<= {meta['maximum']:g}")
    return " and ".join(bounds)


def is_allowed(spec: Field[Any], value: Any) -> bool:
    """Whether a value is in its field's range; a float must also be one in 32 bits, and an integer one in 64."""
    meta = spec.metadata
    return not (
        (isinstance(value, float) and not _fits_float32(value))
        or (isinstance(value, int) and not -(2**63) <= value < 2**63)
        or (meta.get("choices") and value not in meta["choices"])
        or (meta.get("above") is not None and not value > meta["above"])
        or (meta.get("minimum") is not None and not value >= meta["minimum"])
        or (meta.get("maximum") is not None and not value <= meta["maximum"])
    )


def _fits_float32(value: float) -> bool:
    # what is smaller would become 0 in the networks and statistics, and what is larger infinite
    return value == 0 or _SMALLEST_FLOAT32 <= abs(value) <= _LARGEST_FLOAT32


def allowed_in_words(spec: Field[Any], value: Any) -> str:
    """What a value that is not allowed must be, with a field's range."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"a finite number {allowed_range(spec)}".strip()
    if isinstance(value, float) and not _fits_float32(value):
        return f"0 or between 1.2e-38 and 3.4e38 in size, {allowed_range(spec)}".removesuffix(", ")
    if isinstance(value, int) and abs(value) >= 2**63 and not spec.metadata.get("maximum"):
        return f"{allowed_range(spec)} and below 2**63".removeprefix(" and ")
    return allowed_range(spec)


def check_ranges(settings: Any, prefix: str = "") -> None:
    """Check that all values are in their field's range.

    Raises:
        UserError: a value is not; with the full key, the value and the allowed range.
    """
    for spec in fields(settings):
        value = getattr(settings, spec.name)
        key = prefix + spec.name
        if hasattr(value, "__dataclass_fields__"):
            check_ranges(value, key + ".")
            continue
        for element in value if isinstance(value, list) else [value]:
            if element is not None and not is_allowed(spec, element):
                raise UserError(f"{key}={shown(element)} is not allowed: it must be {allowed_in_words(spec, element)}")
