"""Splits and labels of images, taken from the names of their folders or from a label file next to them.

Nothing that may decide a split or a label is left aside in silence: it is read, or refused by name with the option that
settles it, or named in a note.
"""

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, product

from latentscale.errors import UserError
from latentscale.sources.label_matching import Mismatch, match_rows
from latentscale.sources.label_tables import (
    Columns,
    LabelTable,
    clean,
    csv_columns,
    json_columns,
    json_lines_columns,
)
from latentscale.sources.labels import Labels, labels_from_columns, labels_without_training_images
from latentscale.sources.listing import LABEL_FILES, Item, display_name, is_image
from latentscale.sources.source_options import SourceOptions
from latentscale.sources.split_names import (
    AssignedSplits,
    assign_named_splits,
    assign_splits,
    common_folder,
    common_parts,
    known_splits,
)
from latentscale.wording import counted

_STYLEGAN_FILE = "dataset.json"
"""StyleGAN's dataset tool writes labels here; other tools use the name for other things."""

_WAY_OUT = "name another file with --labels FILE, or leave labels out with --labels none"


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


@dataclass
class SplitsAndLabels:
    """The images of each split, with their labels.

    Attributes:
        splits: the items by split.
        labels: the meaning of their labels.
        label_source: where the labels come from.
        label_files: names, within the source, of the label files that were read.
        notes: lines to print for the user.
    """

    splits: dict[str, list[Item]]
    labels: Labels = field(default_factory=Labels)
    label_source: str = ""
    label_files: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Found:
    """What labels the images: columns of values, one for each image, and where they come from; None: no label."""

    titles: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...] | None] = ()
    source: str = ""
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def split_and_label(
    items: list[Item], options: SourceOptions, sidecars: SidecarFiles, location: str
) -> SplitsAndLabels:
    """Assign items to splits by their top folder, and label them as ``options.labels`` says.

    Args:
        items: the images, sorted by name.
        options: ``labels``, ``split`` and ``splits`` are used.
        sidecars: the label files.
        location: the folder or archive, for messages.

    Raises:
        UserError: a label file is damaged, does not name every image or is in the wrong folder; some images are outside
            the folders of the splits or of the classes; or it is unclear what a folder means.
    """
    names = [item.name for item in items]
    common = common_folder(names)
    if options.splits:
        assigned = assign_named_splits(names, common, options.split, options.splits, location)
    else:
        assigned = assign_splits([name.removeprefix(common) for name in names], options.split, location)
    kept = sorted(index for indices in assigned.splits.values() for index in indices)
    split_of = {index: split for split, indices in assigned.splits.items() for index in indices}
    images = _Images(
        [names[index] for index in kept],
        [assigned.below[index] for index in kept],
        [split_of[index] for index in kept],
        location,
    )
    found = _labels(images, common, assigned, options, sidecars)
    result = SplitsAndLabels(
        {split: [items[index] for index in indices] for split, indices in assigned.splits.items()},
        label_source=found.source,
        label_files=found.files,
        notes=[*assigned.notes(), *_backslash_notes(names), *found.notes],
    )
    if found.titles:
        _label(result, found, images, kept, items, assigned)
    return result


@dataclass(frozen=True)
class _Images:
    """The images that a split holds: their names, whole and below the folder of the split, and their splits."""

    names: Sequence[str]
    below: Sequence[str]
    splits: Sequence[str]
    location: str

    def classes(self) -> list[str | None]:
        """The top folder of each image below its split and below folders that hold all; None if it is in none."""
        wrapping = len("".join(f"{part}/" for part in common_parts(self.below)))
        inner = [name[wrapping:] for name in self.below]
        names = inner if any("/" in name for name in inner) else self.below
        return [clean(name.split("/", 1)[0]) if "/" in name else None for name in names]

    def only_in_other_splits(self, without: Sequence[bool]) -> list[str]:
        """The splits of whose images all are marked, if train has none that is marked and each split all or none."""
        counts, marked = Counter(self.splits), Counter(s for s, mark in zip(self.splits, without, strict=True) if mark)
        whole = all(marked[split] in (0, count) for split, count in counts.items())
        return sorted(marked) if whole and "train" in counts and not marked["train"] else []


def _label(
    result: SplitsAndLabels,
    found: _Found,
    images: _Images,
    kept: Sequence[int],
    items: Sequence[Item],
    assigned: AssignedSplits,
) -> None:
    rows = [row for row in found.rows if row is not None]
    result.labels, numbers = labels_from_columns(found.titles, list(zip(*rows, strict=True)))
    order = iter(numbers)
    label_of = {index: None if row is None else next(order) for index, row in zip(kept, found.rows, strict=True)}
    result.splits = {
        split: [replace(items[index], label=label_of[index]) for index in indices]
        for split, indices in assigned.splits.items()
    }
    columns = [[None if row is None else row[number] for row in found.rows] for number in range(len(found.titles))]
    trained = [split == "train" for split in images.splits]
    result.notes += labels_without_training_images(found.titles, columns, trained)


def _backslash_notes(names: Sequence[str]) -> list[str]:
    count = sum("\\" in name for name in names)
    if not count:
        return []
    return [
        f"{counted(count, 'name')} with a backslash, which is a part of the file's name here and not between folders: "
        "if a zip from Windows was unpacked that way, build from the zip"
    ]


def _labels(
    images: _Images, common: str, assigned: AssignedSplits, options: SourceOptions, sidecars: SidecarFiles
) -> _Found:
    wanted = options.labels
    if wanted == "none":
        return _Found(notes=_doubt_notes(assigned))
    if wanted == "auto" and (file := _find_label_file(common, sidecars, images.location)) is not None:
        label_file, name = file
        found = _from_file(label_file, images, name.rpartition("/")[0])
        return replace(found, files=(name,), notes=(*found.notes, *_doubt_notes(assigned)))
    if wanted in ("auto", "folders"):
        return _from_folders(images, assigned, options)
    try:
        with open(wanted, "rb") as stream:  # noqa: PTH123
            content = stream.read()
    except OSError as error:
        raise UserError(
            f"--labels {wanted} cannot be read ({error.strerror}): give auto, folders, none, or a JSON or CSV file"
        ) from error
    found = _from_file(LabelFile(wanted, content), images, common.rstrip("/"))
    return replace(found, notes=(*found.notes, *_doubt_notes(assigned)))


def _doubt_notes(assigned: AssignedSplits) -> tuple[str, ...]:
    if not assigned.doubts:
        return ()
    first, second = map(display_name, assigned.doubts)
    return (f"{first}/ and {second}/ hold the same folders; if they are splits, name them with --splits",)


def _from_folders(images: _Images, assigned: AssignedSplits, options: SourceOptions) -> _Found:
    explicit = options.labels == "folders"
    first = images.classes()
    classes = sorted({name for name in first if name is not None})
    if explicit and None in first:
        stray = images.names[first.index(None)]
        raise UserError(
            f"--labels folders: {display_name(stray)} in {images.location} is not in a folder: move it into one"
        )
    if not explicit and len(classes) < 2:
        return _Found()
    if assigned.doubts and not explicit and options.split != "none":
        a, b = map(display_name, assigned.doubts)
        raise UserError(
            f"{images.location} has {a}/ and {b}/, which hold the same folders: if they are splits, name them, such as "
            f"--splits train={a},test={b}; if they are the labels, use --labels folders"
        )
    notes: list[str] = []
    if None in first:
        flat = images.only_in_other_splits([name is None for name in first])
        if options.split == "none" and set(known_splits(classes)) == set(classes):
            return _Found(
                notes=(f"no labels: {', '.join(classes)} are names of splits, and some images are in neither",)
            )
        if not flat:
            strays = [name for name, top in zip(images.names, first, strict=True) if top is None]
            more = f" and {len(strays) - 1} more images are" if len(strays) > 1 else " is"
            raise UserError(
                f"{images.location} has folders of classes ({', '.join(map(display_name, classes[:3]))}"
                f"{', ...' if len(classes) > 3 else ''}), but {display_name(strays[0])}{more} in none of them: move "
                "what is outside into one or away, name a file of labels with --labels FILE, or use --labels none"
            )
        notes += [f"{split} has no labels: its images are in no folders of classes" for split in flat]
    notes += _doubt_notes(assigned) if explicit else ()
    rows = [None if name is None else (name,) for name in first]
    return _Found(("folder",), rows, "the names of folders", notes=tuple(notes))


def _find_label_file(common: str, sidecars: SidecarFiles, location: str) -> tuple[LabelFile, str] | None:
    """Find the label file in the top folder or in a folder that contains all images; return it and its name.

    Raises:
        UserError: there is one in another folder; ignoring it silently would drop labels.
    """
    folders = list(accumulate((f"{part}/" for part in common.split("/") if part), initial=""))
    # by any case of letters, but as they are written first
    spelled = {name.rpartition("/")[0] + "/" + name.rpartition("/")[2].lower(): name for name in sidecars.names}
    for folder, base in product(folders, (*LABEL_FILES, _STYLEGAN_FILE)):
        name = spelled.get(folder.rstrip("/") + "/" + base, folder + base)
        if (file := sidecars.read(name)) is not None:
            break
    else:
        file, name = None, ""
    elsewhere = [
        other for other in sidecars.names if file is None or other.rpartition("/")[0] != name.rpartition("/")[0]
    ]
    if elsewhere:
        raise UserError(
            f"{location} has a label file, {display_name(elsewhere[0])}, that is not in the images' top "
            "folder: move it there, name a file with --labels FILE, or ignore it with --labels folders or none"
        )
    return None if file is None else (file, name)


def read_columns(file: LabelFile) -> Columns | LabelTable:
    """The table in a label file: JSON and JSON lines by the file's suffix, else CSV.

    Raises:
        UserError: it is no table of labels; the message says why.
    """
    suffix = file.name.lower().rpartition(".")[2]
    parse = {"json": json_columns, "jsonl": json_lines_columns, "ndjson": json_lines_columns}.get(suffix, csv_columns)
    try:
        return parse(file.content)
    except (ValueError, csv.Error) as error:
        raise UserError(f"{file.name} is not a label file ({error}): {_WAY_OUT}") from error


def _from_file(file: LabelFile, images: _Images, folder: str) -> _Found:
    read = read_columns(file)
    if isinstance(read, LabelTable) and not read.titles:
        return _Found(notes=(f"{file.name} says that the images have no labels",))
    table, found = _matched(file, read, images.names, f"{folder}/" if folder else "")
    rows = [None if row is None else table.rows[row][1] for row in found]
    without = [row is None or "" in row for row in rows]
    if all(without) or not any(row is not None for row in found):
        given, wanted = table.rows[0][0] if table.rows else "", images.names[0]
        what = f"names {display_name(given)}" if table.rows else "names no image"
        raise UserError(
            f"{file.name} has no label for any of the {counted(len(images.names), 'image')} in {images.location}: it "
            f"{what}, an image is {display_name(wanted)}: correct the names and labels, or use --labels none"
        )
    notes = []
    if any(without):
        unlabelled = images.only_in_other_splits(without)
        if not unlabelled:
            raise _missing(file, images, rows, without)
        notes += [f"{split} has no labels: {file.name} has none for its images" for split in unlabelled]
    if left := len(table.rows) - sum(row is not None for row in found):
        used = {row for row in found if row is not None}
        example = next(name for number, (name, _) in enumerate(table.rows) if number not in used)
        notes.append(
            f"{file.name} names {counted(left, 'image')} that {images.location} lacks, such as {display_name(example)}"
        )
    kept = [None if missing else row for row, missing in zip(rows, without, strict=True)]
    return _Found(table.titles, kept, file.name, notes=tuple(notes))


def _matched(
    file: LabelFile, read: Columns | LabelTable, names: Sequence[str], folder: str
) -> tuple[LabelTable, list[int | None]]:
    """The table of the column that names the most images, and the row of each image."""
    try:
        tables = [read] if isinstance(read, LabelTable) else [read.table(column) for column in read.file_columns]
    except ValueError as error:
        raise UserError(f"{file.name} is not a label file ({error}): {_WAY_OUT}") from error
    best: tuple[LabelTable, list[int | None]] | None = None
    best_score, problem = (0, 0), ""
    for table in tables:
        rows = [name for name, _ in table.rows]
        twice = next((name for name, times in Counter(rows).items() if times > 1), None)
        try:
            if twice is not None:
                raise Mismatch(f"names {display_name(twice)} twice: keep one of the entries")
            found = match_rows(rows, names, folder)
        except Mismatch as mismatch:
            problem = problem or str(mismatch)
            continue
        score = sum(row is not None for row in found), sum(map(is_image, rows))
        if best is None or score > best_score:
            best, best_score = (table, found), score
    if best is None or (problem and not best_score[0]):
        raise UserError(f"{file.name} {problem}")
    return best


def _missing(
    file: LabelFile, images: _Images, rows: Sequence[tuple[str, ...] | None], without: Sequence[bool]
) -> UserError:
    missing = [index for index, mark in enumerate(without) if mark]
    first = display_name(images.names[missing[0]])
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    empty = "its cell is empty; " if rows[missing[0]] is not None else ""
    return UserError(
        f"{file.name} has no label for {first}{more} ({empty}of {counted(len(images.names), 'image')} in "
        f"{images.location}): add the missing labels, or use --labels none"
    )
