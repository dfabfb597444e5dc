"""Splits and labels of images that only their names, or a file of labels beside them, tell about."""

import csv
import io
import json
import os.path
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from latentscale.data.sources.labels import Labels, labels_of_columns
from latentscale.data.sources.listing import Item, shown, split_folders
from latentscale.data.sources.options import SourceOptions
from latentscale.errors import UserError

SPLIT_OF_FOLDER = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
LABEL_FILES = ("labels.json", "labels.csv", "dataset.json")
"""Looked for beside the images; dataset.json is where StyleGAN's dataset tool puts labels."""

_FILE_TITLES = ("file", "filename", "file_name", "name", "image", "path")


@dataclass(frozen=True)
class LabelFile:
    """The content of a file of labels, and its name in messages."""

    name: str
    content: bytes


def split_and_label(
    items: list[Item], options: SourceOptions, beside: Callable[[str], LabelFile | None], where: str
) -> tuple[dict[str, list[Item]], Labels]:
    """Sort items into splits by their first folder, and give them labels as ``options.labels`` asks.

    Args:
        items: by name.
        options: ``labels`` and ``split`` of them.
        beside: the file of a name beside the images, or None.
        where: the folder or archive, for messages.

    Raises:
        UserError: a file of labels is damaged or does not name every image.
    """
    names = [item.name for item in items]
    splits, below = split_folders(_without_common_folder(names), options.split, SPLIT_OF_FOLDER)
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
    labels, found = _labels(names, below, options, beside, where)
    if labels.names:
        items = [replace(item, label=label) for item, label in zip(items, found, strict=True)]
    order = sorted(splits, key=("train", "val", "test").index)
    return {split: [items[index] for index in splits[split]] for split in order}, labels


def _without_common_folder(names: Sequence[str]) -> list[str]:
    """Names without the folders that all of them stand in, as archives often have one on top."""
    folders = [name.rpartition("/")[0] for name in names]
    common = os.path.commonpath(folders) if folders and all(folders) else ""
    # the folders of a split and of a single class are kept: they say something
    parts = common.split("/")
    depth = next((depth for depth, part in enumerate(parts) if part in SPLIT_OF_FOLDER), len(parts))
    prefix = "".join(f"{part}/" for part in parts[:depth] if part)
    return [name.removeprefix(prefix) for name in names]


def _labels(
    names: Sequence[str],
    below: Sequence[str],
    options: SourceOptions,
    beside: Callable[[str], LabelFile | None],
    where: str,
) -> tuple[Labels, Sequence[int | None]]:
    wanted = options.labels
    if wanted == "none":
        return Labels(), [None] * len(names)
    if wanted in ("auto", "folders"):
        if wanted == "auto":
            for name in LABEL_FILES:
                if (file := beside(name)) is not None:
                    return _from_file(file, names, where)
        first = [name.split("/", 1)[0] if "/" in name else None for name in below]
        classes = {name for name in first if name is not None}
        if None not in first and (len(classes) > 1 or wanted == "folders"):
            return labels_of_columns(("folder",), [[str(name) for name in first]])
        if wanted == "folders":
            stray = below[first.index(None)]
            raise UserError(f"--labels folders: {shown(stray)} in {where} stands in no folder: move it into one")
        return Labels(), [None] * len(names)
    try:
        with open(wanted, "rb") as stream:  # noqa: PTH123
            content = stream.read()
    except OSError as error:
        raise UserError(
            f"--labels {wanted} cannot be read ({error.strerror}): give auto, folders, none, or a JSON or CSV file"
        ) from error
    return _from_file(LabelFile(wanted, content), names, where)


def _from_file(file: LabelFile, names: Sequence[str], where: str) -> tuple[Labels, Sequence[int | None]]:
    try:
        parse = _json_rows if file.name.lower().endswith(".json") else _csv_rows
        titles, rows = parse(file.content)
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{file.name} is no file of labels ({error}): see --labels in the help") from error
    if not titles:
        return Labels(), [None] * len(names)
    by_name = dict(rows)
    missing = [name for name in names if name not in by_name]
    if missing:
        raise UserError(
            f"{file.name} has no label for {shown(missing[0])} and {len(missing) - 1} more of the {len(names)} images "
            f"of {where}: add them, or take --labels none"
        )
    return labels_of_columns(titles, list(zip(*(by_name[name] for name in names), strict=True)))


def _csv_rows(content: bytes) -> tuple[list[str], list[tuple[str, list[str]]]]:
    rows = [row for row in csv.reader(io.StringIO(content.decode("utf-8-sig"))) if row]
    if not rows or rows[0][0].strip().lower() not in _FILE_TITLES or len(rows[0]) < 2:
        raise ValueError("its first line must be titles: file, and one for each label")
    titles = [title.strip() for title in rows[0][1:]]
    for row in rows:
        if len(row) != len(titles) + 1:
            raise ValueError(f"the line of {row[0]!r} has {len(row)} values, not {len(titles) + 1}")
    return titles, [(row[0], row[1:]) for row in rows[1:]]


def _json_rows(content: bytes) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """``{"cat/1.png": "cat", …}``, several labels as a list or an object, or ``{"labels": [["1.png", 3], …]}``."""
    data = json.loads(content)
    if isinstance(data, dict) and set(data) == {"labels"}:
        pairs: list[tuple[str, Any]] = [(name, value) for name, value in data["labels"] or []]
    else:
        pairs = list(data.items())
    if not pairs:
        return [], []
    first = pairs[0][1]
    if isinstance(first, dict):
        titles = list(first)
        rows = [(name, [_text(value[title]) for title in titles]) for name, value in pairs]
    elif isinstance(first, list):
        titles = [f"label{number}" for number in range(len(first))]
        rows = [(name, [_text(value) for value in values]) for name, values in pairs]
        if any(len(values) != len(titles) for _, values in rows):
            raise ValueError(f"not every image has {len(titles)} labels")
    else:
        titles, rows = ["label"], [(name, [_text(value)]) for name, value in pairs]
    return titles, rows


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{value!r} is neither a name nor a number")
    return str(value)
