"""Labels of samples: one index per sample, for a single label or for a combination of several."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from latentscale.errors import UserError

MAX_COMBINATIONS = 2**12
"""Limit for several labels: dataset.json names every combination, and training holds a table of them."""


@dataclass(frozen=True)
class Labels:
    """The meaning of a dataset's labels.

    Attributes:
        names: names of the labels; if samples have several labels, of all combinations, the last label varying fastest.
        sizes: number of categories of each label if samples have several; else empty.
        of: what each label describes, such as an attribute's name; may be empty.
    """

    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    of: tuple[str, ...] = ()


def labels_from_columns(titles: Sequence[str], columns: Sequence[Sequence[str]]) -> tuple[Labels, list[int]]:
    """Make labels from one or several columns of values.

    Args:
        titles: titles of the columns.
        columns: for each column, the value of every sample; its categories are the distinct values, sorted as numbers
            if all are whole numbers.

    Returns:
        The labels, and the label index of each sample.

    Raises:
        UserError: there are more than ``MAX_COMBINATIONS`` combinations.
    """
    values = [_sorted_categories(column) for column in columns]
    labels = labels_from_values(titles, values)
    numbers = [{value: number for number, value in enumerate(column)} for column in values]
    found = []
    for row in zip(*columns, strict=True):
        label = 0
        for value, number in zip(row, numbers, strict=True):
            label = label * len(number) + number[value]
        found.append(label)
    return labels, found


def labels_from_values(titles: Sequence[str], values: Sequence[Sequence[str]]) -> Labels:
    """Make labels whose columns have these categories.

    Raises:
        UserError: there are more than ``MAX_COMBINATIONS`` combinations.
    """
    sizes = tuple(map(len, values))
    if math.prod(sizes) > MAX_COMBINATIONS:
        raise UserError(
            f"{len(titles)} labels of {'x'.join(map(str, sizes))} categories make {math.prod(sizes)} combinations, "
            f"more than the {MAX_COMBINATIONS} that a dataset can have: choose fewer labels"
        )
    if len(titles) == 1:
        return Labels(tuple(values[0]), of=tuple(titles))
    names = tuple(
        ", ".join(f"{title}={value}" for title, value in zip(titles, row, strict=True)) for row in product(*values)
    )
    return Labels(names, sizes, tuple(titles))


def _sorted_categories(column: Sequence[str]) -> list[str]:
    categories = sorted(set(column))
    if all(value.isascii() and value.isdigit() for value in categories):
        categories.sort(key=int)
    return categories
