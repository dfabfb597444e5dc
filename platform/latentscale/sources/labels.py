"""Labels of samples: one index a sample, of one label or of the combination of several."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from latentscale.errors import UserError

MAX_COMBINATIONS = 2**12
"""Of several labels: dataset.json names each combination, and training keeps a table of them."""


@dataclass(frozen=True)
class Labels:
    """What the labels of a dataset mean.

    Attributes:
        names: of the labels; of several labels a sample the names of all combinations, the last running fastest.
        sizes: the number of categories of each of several labels; empty for one label or none.
        of: what each label tells, such as an attribute's name; may be empty.
    """

    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    of: tuple[str, ...] = ()


def labels_from_columns(titles: Sequence[str], columns: Sequence[Sequence[str]]) -> tuple[Labels, list[int]]:
    """Labels from the values of one or several columns.

    Args:
        titles: of the columns.
        columns: for each the value of every sample; a column's categories are its values, sorted as numbers where
            all are whole numbers.

    Returns:
        The labels, and each sample's.

    Raises:
        UserError: more combinations than can be named.
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
    """Labels whose columns have these values.

    Raises:
        UserError: more combinations than can be named.
    """
    sizes = tuple(map(len, values))
    if math.prod(sizes) > MAX_COMBINATIONS:
        raise UserError(
            f"{len(titles)} labels of {'x'.join(map(str, sizes))} categories make {math.prod(sizes)} combinations, "
            f"more than the {MAX_COMBINATIONS} that a dataset can name: choose fewer labels"
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
