"""Splits and labels of images, taken from the names of their folders or from label files beside them."""

import os.path
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

from latentscale.errors import UserError
from latentscale.sources.label_matching import match_rows
from latentscale.sources.label_tables import LabelFile, LabelTable, read_label_table
from latentscale.sources.labels import Labels, labels_from_columns
from latentscale.sources.listing import LABEL_FILES, STYLEGAN_FILE, Item, display_name, origin_notes, origins_text
from latentscale.sources.source_options import SourceOptions
from latentscale.sources.split_folders import (
    SPLITS,
    SplitFolders,
    common_folders,
    find_splits,
    parse_splits,
    split_of_folder,
)
from latentscale.wording import counted


@dataclass(frozen=True)
class SidecarFiles:
    """The label files in a folder or archive.

    Attributes:
        names: names of all files that are named like label files, at any depth.
        read: returns the label file of a name, or None.
    """

    names: Sequence[str]
    read: Callable[[str], LabelFile | None]


@dataclass
class Assigned:
    """Images by split, and the meaning of their labels.

    Attributes:
        notes: lines to print for the user.
        described: whether StyleGAN's file was read, which is no label file by its name alone.
    """

    splits: dict[str, list[Item]]
    labels: Labels
    notes: list[str]
    described: bool = False


@dataclass
class _Found:
    """Labels, the label of each image, and where they are from; no labels if ``origin`` is empty.

    ``none`` tells that a file says so, ``described`` that StyleGAN's file was read.
    """

    labels: Labels = field(default_factory=Labels)
    of_image: Sequence[int | None] = ()
    origin: str = ""
    notes: list[str] = field(default_factory=list)
    none: bool = False
    described: bool = False


def split_and_label(items: list[Item], options: SourceOptions, sidecars: SidecarFiles, location: str) -> Assigned:
    """Assign items to splits by their top folder, and label them as ``options.labels`` says.

    What decides splits or labels is read, or refused by name with the option that settles it.

    Args:
        items: the images, sorted by name.
        options: ``labels``, ``split`` and ``splits`` are used.
        sidecars: the label files.
        location: the folder or archive, for messages.

    Raises:
        UserError: a label file is damaged, does not name every image or is in the wrong folder, some images are
            outside the folders of the splits or classes, or folders may be splits or classes.
    """
    chosen = parse_splits(options.splits)
    folders = find_splits([item.name for item in items], options.split, chosen, location)
    if folders.left_out:
        items, folders = _without(items, folders)
    names = [item.name for item in items]
    common = _common_folder(names, chosen)
    found = _find_labels(names, folders, common, options, sidecars, location)
    if found.origin:
        items = [replace(item, label=label) for item, label in zip(items, found.of_image, strict=True)]
    splits = {split: [items[index] for index in folders.splits[split]] for split in SPLITS if split in folders.splits}
    return Assigned(
        splits,
        found.labels,
        [*folders.notes, *_backslash_notes(names), *found.notes, *origin_notes(splits, found.labels, found.origin)],
        found.described,
    )


def _without(items: Sequence[Item], folders: SplitFolders) -> tuple[list[Item], SplitFolders]:
    left_out = set(folders.left_out)
    kept = [index for index in range(len(items)) if index not in left_out]
    place = {index: number for number, index in enumerate(kept)}
    splits = {split: [place[index] for index in indices] for split, indices in folders.splits.items()}
    below = [folders.below[index] for index in kept]
    return [items[index] for index in kept], SplitFolders(splits, below, [], folders.notes)


def _common_folder(names: Sequence[str], chosen: dict[str, str]) -> str:
    """The folders that contain all names, ending in ``/``; archives often have one at the top."""
    folders = [name.rpartition("/")[0] for name in names]
    common = os.path.commonpath(folders) if folders and all(folders) else ""
    # stop at a folder that names a split: it and the folders below it give splits and labels
    parts = common.split("/")
    is_split = [part in chosen if chosen else bool(split_of_folder(part)) for part in parts]
    depth = is_split.index(True) if any(is_split) else len(parts)
    return "".join(f"{part}/" for part in parts[:depth] if part)


def _find_labels(
    names: Sequence[str],
    folders: SplitFolders,
    common: str,
    options: SourceOptions,
    sidecars: SidecarFiles,
    location: str,
) -> _Found:
    wanted = options.labels
    if wanted == "none":
        return _Found()
    if wanted == "auto":
        found = _from_sidecars(names, common, sidecars, location)
        return found if found.origin or found.none else _by_folders(names, folders, options, location, found.notes)
    if wanted == "folders":
        return _by_folders(names, folders, options, location, [])
    path = Path(wanted).expanduser()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"--labels {wanted} cannot be read ({error.strerror}): give auto, folders, none, or a JSON or CSV file"
        ) from error
    table = read_label_table(LabelFile(str(path), content))
    return _from_table(table, names, common, str(path), location)


def _by_folders(
    names: Sequence[str], folders: SplitFolders, options: SourceOptions, location: str, notes: list[str]
) -> _Found:
    first = _classes(folders.below)
    classes = {name for name in first if name is not None}
    must = options.labels == "folders"
    if not must and len(classes) < 2:
        return _Found(notes=notes)
    strays = [index for index, folder in enumerate(first) if folder is None]
    if not strays:
        labels, numbers = labels_from_columns(("folder",), [[str(name) for name in first]])
        return _Found(labels, numbers, "the folders' names", notes)
    stray = display_name(names[strays[0]])
    more = f" and {len(strays) - 1} more images are" if len(strays) > 1 else " is"
    if must:
        raise UserError(f"--labels folders: {stray}{more} not in a folder of {location}: move them into one")
    within = next(index for index, folder in enumerate(first) if folder is not None)
    whole = [split for split, indices in folders.splits.items() if set(indices) <= set(strays)]
    way_out = ""
    if whole and len(whole) < len(folders.splits):
        named = {
            (split, names[index].removesuffix(folders.below[index]).rstrip("/"))
            for split, indices in folders.splits.items()
            for index in indices
            if split not in whole
        }
        kept = ",".join(f"{split}={display_name(folder)}" for split, folder in sorted(named))
        way_out = f", leave the {whole[0]} split out with --splits {kept}"
    raise UserError(
        f"{location}: {stray}{more} in no class folder, but others are, such as {display_name(names[within])}: move "
        f"them into one or away{way_out}, label all images with --labels FILE, or none with --labels none"
    )


def _classes(below: Sequence[str]) -> list[str | None]:
    """The top folder of each image below its split and below folders that hold all; None if it is in none."""
    wrapping = "".join(f"{folder}/" for folder in common_folders(below))
    inner = [name.removeprefix(wrapping) for name in below]
    names = inner if any("/" in name for name in inner) else below
    return [unicodedata.normalize("NFC", name.partition("/")[0]) if "/" in name else None for name in names]


def _backslash_notes(names: Sequence[str]) -> list[str]:
    if not (count := sum("\\" in name for name in names)):
        return []
    return [
        f"{counted(count, 'name')} with a backslash, which is a part of the file's name here and not between folders: "
        "if a zip from Windows was unpacked that way, build from the zip"
    ]


def _from_sidecars(names: Sequence[str], common: str, sidecars: SidecarFiles, location: str) -> _Found:
    """Labels by the file in the top folder or in a folder that contains all images, or by one in each folder.

    Raises:
        UserError: there is one elsewhere; ignoring it silently would drop labels.
    """
    notes: list[str] = []
    above = list(accumulate((f"{part}/" for part in common.split("/") if part), initial=""))
    for folder in above:
        files = _label_files(folder, (*LABEL_FILES, STYLEGAN_FILE), sidecars)
        if files:
            _refuse_others([name for name in sidecars.names if _folder(name) != folder], location)
        agreed = _agreed(files, names, folder, location)
        notes += agreed.notes
        if agreed.found is not None:
            return replace(agreed.found, notes=[*notes, *agreed.found.notes])
    below = sorted({_folder(name) for name in sidecars.names} - set(above))
    if not below:
        return _Found(notes=notes)
    nested = any(inner != outer and inner.startswith(outer) for inner in below for outer in below)
    if nested or not all(any(name.startswith(folder) for folder in below) for name in names):
        _refuse_others([name for name in sidecars.names if _folder(name) in below], location)
    return _from_several(names, below, sidecars, location, notes)


def _from_several(
    names: Sequence[str], folders: Sequence[str], sidecars: SidecarFiles, location: str, notes: list[str]
) -> _Found:
    """Labels of images in several folders, each by the label file in its folder."""
    titles: list[str] | None = None
    values: dict[str, list[str]] = {}
    files: dict[str, int] = {}
    for folder in folders:
        inside = [name for name in names if name.startswith(folder)]
        agreed = _agreed(_label_files(folder, LABEL_FILES, sidecars), inside, folder, location)
        file, table = agreed.file, agreed.table
        notes += agreed.notes
        if titles is not None and table.titles != titles:
            raise UserError(
                f"{file.name} has the labels {', '.join(table.titles) or 'none'}, but {next(iter(files))} has "
                f"{', '.join(titles) or 'none'}: give them the same, or name one file with --labels FILE"
            )
        titles = table.titles
        if titles:
            matched = match_rows(inside, table.rows, folder, file.name, location)
            values |= dict(zip(inside, matched.values, strict=True))
            notes += _unused_note(file.name, matched.unused)
        notes += table.notes
        files[file.name] = len(inside)
    if not titles:
        return _Found(notes=notes)
    labels, numbers = labels_from_columns(titles, list(zip(*(values[name] for name in names), strict=True)))
    return _Found(labels, numbers, origins_text(files), notes)


@dataclass
class _Agreed:
    """The label file of a folder that counts, and what it says; ``found`` is None if it says nothing of labels.

    ``notes`` are of the files that say nothing.
    """

    file: LabelFile
    table: LabelTable
    found: _Found | None = None
    notes: list[str] = field(default_factory=list)


def _agreed(files: Sequence[LabelFile], names: Sequence[str], folder: str, location: str) -> _Agreed:
    """The first label file that speaks of labels, if the others put the images into the same classes.

    Raises:
        UserError: one of them is damaged, does not name every image, or says otherwise.
    """
    agreed = _Agreed(files[0] if files else LabelFile("", b""), LabelTable())
    for file in files:
        is_stylegan = file.name.endswith(STYLEGAN_FILE)
        try:
            table = read_label_table(file)
            if not (table.titles or table.none):
                agreed.notes += table.notes
                continue
            found = replace(
                _from_table(table, names, folder, file.name, location), none=table.none, described=is_stylegan
            )
        except UserError as error:
            if agreed.found is None:
                raise
            if is_stylegan:
                continue  # other tools use its name for other things
            raise UserError(f"{error}; or name {agreed.file.name} by --labels FILE") from error
        if agreed.found is None:
            agreed.file, agreed.table, agreed.found = file, table, found
        elif _partition(found) != _partition(agreed.found):
            raise UserError(
                f"{agreed.file.name} and {file.name} give the images different labels: name the right one with "
                "--labels FILE, or remove the other"
            )
        else:
            agreed.found.described |= is_stylegan
    return agreed


def _label_files(folder: str, bases: Sequence[str], sidecars: SidecarFiles) -> list[LabelFile]:
    """The label files of a folder, those that count first."""
    return [file for base in bases if (file := _read(sidecars, folder + base)) is not None]


def _partition(found: _Found) -> list[int]:
    """The class of each image, numbered in the order in which the images show them; empty without labels."""
    numbers: dict[int | None, int] = {}
    return [numbers.setdefault(label, len(numbers)) for label in found.of_image]


def _refuse_others(others: Sequence[str], location: str) -> None:
    if others:
        raise UserError(
            f"{location} has a label file, {display_name(others[0])}, that is not in the images' top "
            "folder: move it there, name a file with --labels FILE, or ignore it with --labels folders or none"
        )


def _from_table(table: LabelTable, names: Sequence[str], folder: str, file: str, location: str) -> _Found:
    if not table.titles:
        return _Found(notes=table.notes)
    matched = match_rows(names, table.rows, folder, file, location)
    labels, numbers = labels_from_columns(table.titles, list(zip(*matched.values, strict=True)))
    return _Found(labels, numbers, file, [*table.notes, *_unused_note(file, matched.unused)])


def _unused_note(file: str, unused: Sequence[str]) -> list[str]:
    if not unused:
        return []
    count = counted(len(unused), "image")
    return [f"{file} also names {count} not there, such as {display_name(unused[0])}"]


def _read(sidecars: SidecarFiles, name: str) -> LabelFile | None:
    """The label file of a name in whatever case of letters its last part is written."""
    folder = _folder(name)
    spelled = (other for other in sidecars.names if folder + other.removeprefix(folder).lower() == name)
    return sidecars.read(next(spelled, name))


def _folder(name: str) -> str:
    head, slash, _ = name.rpartition("/")
    return head + slash
