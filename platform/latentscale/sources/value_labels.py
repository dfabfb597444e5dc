"""Labels that come as one value for each image: a column of a table, or an array."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from latentscale.errors import UserError
from latentscale.sources.listing import display_name

_SHUFFLED_SHARE = 0.5


def label_texts(values: Sequence[Any], location: str) -> list[str]:
    """Whole numbers and names as texts.

    Args:
        values: one per image.
        location: of the values, for messages.

    Raises:
        UserError: a value is missing, negative, or neither a whole number nor a name.
    """
    texts = []
    for number, value in enumerate(values):
        if isinstance(value, bytes):
            try:
                value = value.decode("utf-8")
            except UnicodeDecodeError:
                raise UserError(f"{location}[{number}] is no text: labels must be whole numbers or names") from None
        if value is None or value == "" or (isinstance(value, int) and value < 0):
            shown = "is missing" if value is None else "is empty" if value == "" else f"is {value}"
            raise UserError(
                f"{location}[{number}] {shown}, as for images without a label: leave such a split out with --splits, "
                "or use --labels none"
            )
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise UserError(
                f"{location}[{number}] is {display_name(repr(value))[:60]}: labels must be whole numbers or names; name"
                " another with --label-field, or use --labels none"
            )
        texts.append(str(value).strip())
    return texts


def come_sorted(labels: Sequence[int | None]) -> bool:
    """Whether images come label by label, or nearly so: a build should then shuffle them."""
    values = np.array([-1 if label is None else label for label in labels])
    if len(values) < 2:
        return False
    shares = np.unique(values, return_counts=True)[1] / len(values)
    changes = np.count_nonzero(np.diff(values)) / (len(values) - 1)
    return bool(len(shares) > 1 and changes < _SHUFFLED_SHARE * (1 - np.square(shares).sum()))
