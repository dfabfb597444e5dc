"""Images in parquet files, as Hugging Face's datasets keep them: ``data/train-00000-of-00004.parquet``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from latentscale.containers.input_files import InputFile, InputFiles, input_files
from latentscale.containers.parquet_files import (
    KEPT_BYTES,
    ParquetFile,
    group_bytes,
    missing_bytes,
    open_parquet,
    read_bytes,
    read_column,
)
from latentscale.errors import UserError
from latentscale.sources.archives import TOO_LARGE
from latentscale.sources.file_splits import FileSplits, split_files
from latentscale.sources.label_tables import LABEL_TITLES
from latentscale.sources.labels import Labels, labels_from_columns, labels_from_values
from latentscale.sources.listing import MAX_FILE_BYTES, Item, Listing, UnreadableItem, display_name, origin_notes
from latentscale.sources.source_options import SourceOptions
from latentscale.sources.split_folders import SPLITS, split_of_folder
from latentscale.sources.value_labels import come_sorted, label_texts
from latentscale.wording import counted

_PART = re.compile(r"(?P<split>.*?)-?(?P<number>\d{5})-of-(?P<count>\d{5})[-.].*")
_LARGE_GROUP_BYTES = 2**29
_EMBED = (
    "write the dataset anew with its images embedded, ds.with_format('arrow').map(embed_table_storage, batched=True) "
    "of datasets.table, as push_to_hub does"
)


class Row(NamedTuple):
    """The place of an image: the number of its file, of the row group, and of the row in it."""

    file: int
    group: int
    row: int


@dataclass(frozen=True)
class ParquetReader:
    """Reads a column of images; each process keeps the row groups that it read last."""

    files: tuple[ParquetFile, ...]
    column: str

    def read(self, item: Item) -> bytes:
        place: Row = item.place
        try:
            content = read_bytes(self.files[place.file], self.column, place.group, place.row)
        except UserError as error:
            raise UnreadableItem(f"is lost: {error}") from error
        if content is None:
            raise UnreadableItem(f"has no bytes, only a path or nothing ({_EMBED})")
        if len(content) > MAX_FILE_BYTES:
            raise UnreadableItem(TOO_LARGE)
        return content


@dataclass(frozen=True)
class _LabelColumn:
    """The categories of a column, and the number of each row's."""

    title: str
    categories: tuple[str, ...]
    numbers: list[int]


def list_parquet(paths: Sequence[Path], options: SourceOptions) -> Listing:
    """List the rows of parquet files, with splits by the files' names and labels by a column.

    Raises:
        UserError: pyarrow is not installed; a file is damaged; or the column of images or labels is missing or unclear.
    """
    if options.labels not in ("auto", "none"):
        raise UserError(f"--labels {options.labels} is not used by parquet: use --label-field COLUMN, or --labels none")
    if options.label_field and options.labels == "none":
        raise UserError("--label-field and --labels none contradict each other: leave one out")
    given = input_files(paths, (".parquet",), "parquet", options.follow_symlinks)
    splits = _splits(given, options).merged(options.split)
    kept = [
        (file, split)
        for split in SPLITS
        for file, named in zip(given.files, splits.of_file, strict=True)
        if named == split
    ]
    files = [open_parquet(file.path) for file, _ in kept]
    image = _image_column(files, options, given)
    columns = [] if options.labels == "none" else _label_columns(files, options, image)
    labels, numbers = _labels(files, columns)
    items: dict[str, list[Item]] = {}
    start = 0
    for number, (named, split) in enumerate(kept):
        end = start + sum(files[number].rows)
        found = _items(number, named, files[number], numbers[start:end] if labels.names else None)
        items.setdefault(split, []).extend(found)
        start = end
    is_sorted = bool(labels.names) and come_sorted([item.label for split in items.values() for item in split])
    origin = f"the column {' and '.join(columns)}" if columns else ""
    return Listing(
        name=given.name,
        licence="unknown",
        splits={split: found for split, found in items.items() if found},
        reader=ParquetReader(tuple(files), image),
        tree=given.tree,
        read_in_place=given.stamps(),
        labels=labels,
        sorted_by_label=is_sorted,
        same_in_test=options.split == "all",
        notes=[
            *given.notes,
            *_incomplete(given),
            *splits.notes,
            *_ignored(files, image, columns),
            *_large(files, image),
            *(_slow(files, image) if is_sorted else []),
            *origin_notes(items, labels, origin),
        ],
    )


def _splits(given: InputFiles, options: SourceOptions) -> FileSplits:
    """The files' splits.

    Raises:
        UserError: the files are of several datasets, or of splits of other names.
    """
    names = [file.name for file in given.files]
    found = split_files(names, options, given.location)
    if options.splits and found is None:
        there = ", ".join(map(display_name, names[:10]))
        raise UserError(f"--splits {options.splits} names none of the files of {given.location}, which are {there}")
    if options.splits:
        assert found is not None
        return found
    folders = sorted({_dataset_folder(name) for name in names})
    if len(folders) > 1:
        first, second = (display_name(folder or "its top") for folder in folders[:2])
        raise UserError(
            f"{given.location} holds parquet files in {first} and {second}, which may be different datasets or "
            "versions of one: name one of these folders, or say what is what with --splits train=FOLDER,test=FOLDER"
        )
    if found is not None:
        return found
    parts = sorted({match["split"] for name in names if (match := _PART.fullmatch(name.rpartition("/")[2]))})
    if len(parts) > 1 and options.split == "published":
        first, second = map(display_name, parts[:2])
        raise UserError(
            f"{given.location} holds the splits {', '.join(map(display_name, parts))}: say which they are, such as "
            f"--splits train={first},test={second}, or take all for training with --split none"
        )
    return FileSplits(["train"] * len(names))


def _dataset_folder(name: str) -> str:
    """The folder of a file without folders that are called like splits."""
    return "/".join(part for part in name.split("/")[:-1] if not split_of_folder(part))


def _image_column(files: Sequence[ParquetFile], options: SourceOptions, given: InputFiles) -> str:
    candidates = [name for name in files[0].images if all(name in file.images for file in files)]
    described = [name for name in candidates if files[0].types.get(name) == "Image"]
    chosen = options.image_field
    if chosen and chosen not in candidates:
        have = ", ".join(map(display_name, files[0].columns[:20]))
        raise UserError(
            f"--image-field {chosen}: {files[0].path} has no such column of bytes (its columns: {have}): name another"
        )
    found = [chosen] if chosen else described or candidates
    if not found:
        have = ", ".join(map(display_name, files[0].columns[:20])) or "none"
        raise UserError(
            f"{given.location} has no column of images, which are bytes or structs of bytes and path (its columns: "
            f"{have}): name parquet files of images"
        )
    if len(found) > 1:
        raise UserError(
            f"{files[0].path} has images in the columns {', '.join(map(display_name, found))}: choose with "
            f"--image-field {display_name(found[0])}"
        )
    for file in files:
        if missing_bytes(file, found[0]):
            raise UserError(f"{file.path} holds only the paths of images, not the images: {_EMBED}")
    return found[0]


def _label_columns(files: Sequence[ParquetFile], options: SourceOptions, image: str) -> list[str]:
    """The names of the columns of labels."""
    for name in options.label_field:
        for file in files:
            if name not in file.columns:
                have = ", ".join(map(display_name, file.columns[:20]))
                raise UserError(
                    f"--label-field {name}: {file.path} has no such column (its columns: {have}): name another"
                )
    if options.label_field:
        return list(options.label_field)
    found: list[str] = []
    for file in files:
        described = [name for name in file.columns if file.types.get(name) == "ClassLabel"]
        titled = [name for name in file.columns if name.casefold() in (*LABEL_TITLES, "cls") and name != image]
        found += [name for name in described or titled if name not in found]
    if len(found) > 1:
        shown = [display_name(name) for name in found]
        raise UserError(
            f"{files[0].path} has labels in the columns {', '.join(shown)}: choose with --label-field {shown[0]}, take "
            f"all with --label-field {','.join(shown)}, or none with --labels none"
        )
    for file in files:
        if found and found[0] not in file.columns:
            raise UserError(
                f"{file.path} has no column {display_name(found[0])}, but others have: leave that split out with "
                "--splits, or use --labels none"
            )
    return found


def _labels(files: Sequence[ParquetFile], columns: Sequence[str]) -> tuple[Labels, list[int]]:
    found = [_label_column(files, column) for column in columns]
    if not found:
        return Labels(), []
    labels = labels_from_values([column.title for column in found], [column.categories for column in found])
    numbers = found[0].numbers
    for column in found[1:]:
        numbers = [
            number * len(column.categories) + other for number, other in zip(numbers, column.numbers, strict=True)
        ]
    return labels, numbers


def _label_column(files: Sequence[ParquetFile], column: str) -> _LabelColumn:
    """The categories and rows of a column.

    Raises:
        UserError: a value is missing or no label, or files name the classes differently.
    """
    names = files[0].names.get(column)
    for file in files[1:]:
        if file.names.get(column) != names:
            raise UserError(
                f"{files[0].path} and {file.path} name the classes of {display_name(column)} differently: fetch both "
                "again, or build them one by one"
            )
    texts: list[str] = []
    for file in files:
        start = 0
        for values in read_column(file, column):
            where = f"{file.path} column {display_name(column)}, row {start} and on"
            texts += label_texts(values, where if start else f"{file.path} column {display_name(column)}")
            start += len(values)
    if names is None:
        labels, numbers = labels_from_columns((column,), [texts])
        return _LabelColumn(column, labels.names, numbers)
    for text in texts:
        if not (text.isascii() and text.isdigit()) or int(text) >= len(names):
            raise UserError(
                f"{files[0].path} has the label {display_name(text)} in {display_name(column)}, which is none of its "
                f"{counted(len(names), 'class', 'classes')}: fetch it again, or use --labels none"
            )
    return _LabelColumn(column, names, [int(text) for text in texts])


def _items(number: int, named: InputFile, file: ParquetFile, labels: Sequence[int] | None) -> list[Item]:
    places = (Row(number, group, row) for group, rows in enumerate(file.rows) for row in range(rows))
    return [
        Item(
            f"{named.name}[{row}]",
            place,
            file.stamp,
            None if labels is None else labels[row],
            (("number", row),),
        )
        for row, place in enumerate(places)
    ]


def _incomplete(given: InputFiles) -> list[str]:
    """Parts that are not there, as their numbers say."""
    parts: dict[tuple[str, str], set[str]] = {}
    for file in given.files:
        if match := _PART.fullmatch(file.name.rpartition("/")[2]):
            parts.setdefault((match["split"], match["count"]), set()).add(match["number"])
    return [
        f"only {len(found)} of the {int(count)} files of {display_name(split)} are there"
        for (split, count), found in sorted(parts.items())
        if len(found) < int(count)
    ]


def _ignored(files: Sequence[ParquetFile], image: str, columns: Sequence[str]) -> list[str]:
    others = [name for name in files[0].columns if name != image and name not in columns]
    if not others:
        return []
    more = f" and {len(others) - 10} more" if len(others) > 10 else ""
    way = "" if columns else "; --label-field takes one as labels"
    return [f"ignored the columns {', '.join(map(display_name, others[:10]))}{more}{way}"]


def _large(files: Sequence[ParquetFile], image: str) -> list[str]:
    """A note about row groups whose pages may take much memory: a page is decoded as a whole."""
    largest = max(group_bytes(file, image) for file in files)
    if largest <= _LARGE_GROUP_BYTES:
        return []
    return [
        f"row groups hold up to {largest / 2**20:.0f} MB of images, of which each process may need a multiple: fewer "
        "--workers need less memory, and so do files written with row_group_size=100"
    ]


def _slow(files: Sequence[ParquetFile], image: str) -> list[str]:
    largest = max(group_bytes(file, image) for file in files)
    if largest <= KEPT_BYTES:
        return []
    return [
        f"the images come sorted by label and are shuffled, but row groups of {largest / 2**20:.0f} MB must be decoded "
        "for each: this is slow; files written with row_group_size=100 are faster"
    ]
