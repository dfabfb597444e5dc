"""Splits and labels of images, taken from the names of their folders or from a label file next to them."""

import csv
import io
import json
import os.path
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product
from typing import Any

from latentscale.errors import UserError
from latentscale.sources.labels import Labels, labels_from_columns
from latentscale.sources.listing import LABEL_FILES, Item, display_name, split_folders
from latentscale.sources.source_options import SourceOptions
from latentscale.wording import counted

SPLIT_OF_FOLDER = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
_STYLEGAN_FILE = "dataset.json"
"""StyleGAN's dataset tool writes labels here; other tools use the name for other things."""

_FILE_TITLES = ("file", "filename", "file_name", "name", "image", "path")


@dataclass(frozen=True)
class LabelFile:
    """The content of a label file, and its name for messages."""

    name: str
    content: bytes


@dataclass(frozen=True)
class SidecarFiles:
    """The label files in a folder or archive.

    Attributes:
        names: names of all files that are named like label files, at any depth.
        read: returns the label file of a name, or None.
    """

    names: Sequence[str]
    read: Callable[[str], LabelFile | None]


def split_and_label(
    items: list[Item], options: SourceOptions, sidecars: SidecarFiles, location: str
) -> tuple[dict[str, list[Item]], Labels]:
    """Assign items to splits by their top folder, and label them as ``options.labels`` says.

    Args:
        items: the images, sorted by name.
        options: ``labels`` and ``split`` are used.
        sidecars: the label files.
        location: the folder or archive, for messages.

    Raises:
        UserError: a label file is damaged, does not name every image or is in the wrong folder, or some images are
            outside the folders of the splits.
    """
    names = [item.name for item in items]
    folder = _common_folder(names)
    below_it = [name.removeprefix(folder) for name in names]
    splits, below = split_folders(below_it, options.split, SPLIT_OF_FOLDER, location)
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
    labels, found = _labels(names, below, folder, options, sidecars, location)
    if labels.names:
        items = [replace(item, label=label) for item, label in zip(items, found, strict=True)]
    order = sorted(splits, key=("train", "val", "test").index)
    return {split: [items[index] for index in splits[split]] for split in order}, labels


def _common_folder(names: Sequence[str]) -> str:
    """The folders that contain all names, ending in ``/``; archives often have one at the top."""
    folders = [name.rpartition("/")[0] for name in names]
    common = os.path.commonpath(folders) if folders and all(folders) else ""
    # stop at a folder that names a split: it and the folders below it give splits and labels
    parts = common.split("/")
    depth = next((depth for depth, part in enumerate(parts) if part in SPLIT_OF_FOLDER), len(parts))
    return "".join(f"{part}/" for part in parts[:depth] if part)


def _labels(
    names: Sequence[str],
    below: Sequence[str],
    common: str,
    options: SourceOptions,
    sidecars: SidecarFiles,
    location: str,
) -> tuple[Labels, Sequence[int | None]]:
    wanted = options.labels
    if wanted == "none":
        return Labels(), [None] * len(names)
    if wanted in ("auto", "folders"):
        if wanted == "auto" and (found := _find_label_file(common, sidecars, location)) is not None:
            file, folder = found
            return _from_file(file, names, location, folder)
        first = [name.split("/", 1)[0] if "/" in name else None for name in below]
        classes = {name for name in first if name is not None}
        if None not in first and (len(classes) > 1 or wanted == "folders"):
            return labels_from_columns(("folder",), [[str(name) for name in first]])
        if wanted == "folders":
            stray = below[first.index(None)]
            raise UserError(
                f"--labels folders: {display_name(stray)} in {location} is not in a folder: move it into one"
            )
        return Labels(), [None] * len(names)
    try:
        with open(wanted, "rb") as stream:  # noqa: PTH123
            content = stream.read()
    except OSError as error:
        raise UserError(
            f"--labels {wanted} cannot be read ({error.strerror}): give auto, folders, none, or a JSON or CSV file"
        ) from error
    return _from_file(LabelFile(wanted, content), names, location, common)


def _find_label_file(common: str, sidecars: SidecarFiles, location: str) -> tuple[LabelFile, str] | None:
    """Find the label file in the top folder or in a folder that contains all images; return it and its folder.

    Raises:
        UserError: there is one in another folder; ignoring it silently would drop labels.
    """
    folders = list(accumulate((f"{part}/" for part in common.split("/") if part), initial=""))
    for folder, name in product(folders, (*LABEL_FILES, _STYLEGAN_FILE)):
        if (file := sidecars.read(folder + name)) is not None:
            break
    else:
        file, folder = None, ""
    elsewhere = [name for name in sidecars.names if file is None or name.rpartition("/")[0] != folder.rstrip("/")]
    if elsewhere:
        raise UserError(
            f"{location} has a label file, {display_name(elsewhere[0])}, that is not in the images' top "
            "folder: move it there, name a file with --labels FILE, or ignore it with --labels folders or none"
        )
    return None if file is None else (file, folder)


def _from_file(
    file: LabelFile, names: Sequence[str], location: str, folder: str
) -> tuple[Labels, Sequence[int | None]]:
    try:
        parse = _json_rows if file.name.lower().endswith(".json") else _csv_rows
        titles, rows = parse(file.content)
    except (ValueError, KeyError, TypeError, RecursionError, csv.Error) as error:
        raise UserError(f"{file.name} is not a label file ({error}): see --labels in the help") from error
    if not titles:
        return Labels(), [None] * len(names)
    by_name = dict(rows)
    if len(by_name) != len(rows):
        twice = next(name for name, times in Counter(name for name, _ in rows).items() if times > 1)
        raise UserError(f"{file.name} names {display_name(twice)} twice: keep one of the entries")
    # the file may name images relative to its own folder
    by_name = {folder + name: values for name, values in by_name.items()} | by_name
    missing = [name for name in names if name not in by_name]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"{file.name} has no label for {display_name(missing[0])}{more} (of {counted(len(names), 'image')} in "
            f"{location}): add the missing labels, or use --labels none"
        )
    return labels_from_columns(titles, list(zip(*(by_name[name] for name in names), strict=True)))


def _csv_rows(content: bytes) -> tuple[list[str], list[tuple[str, list[str]]]]:
    rows = [row for row in csv.reader(io.StringIO(content.decode("utf-8-sig"))) if row]
    if not rows or rows[0][0].strip().lower() not in _FILE_TITLES or len(rows[0]) < 2:
        raise ValueError("its first line must be titles: file, then one per label")
    titles = [title.strip() for title in rows[0][1:]]
    for row in rows:
        if len(row) != len(titles) + 1:
            raise ValueError(f"the line of {row[0]!r} has {len(row)} values instead of {len(titles) + 1}")
    return titles, [(row[0], row[1:]) for row in rows[1:]]


def _json_rows(content: bytes) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Parse ``{"cat/1.png": "cat", …}`` (several labels: a list or an object) or ``{"labels": [["1.png", 3], …]}``."""
    data = json.loads(content, object_pairs_hook=_object)
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


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for name, times in Counter(name for name, _ in pairs).items():
        if times > 1:
            raise ValueError(f"it names {name!a} twice")
    return dict(pairs)


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{value!r} is neither a name nor a number")
    return str(value)
