"""MNIST, Fashion-MNIST, Kuzushiji-MNIST, EMNIST and QMNIST as idx files, gzipped or not."""

import re
from pathlib import Path
from typing import NamedTuple

from latentscale.containers.input_files import file_stamp
from latentscale.errors import UserError
from latentscale.sources.arrays import ArrayReader, Row, load_array, load_classes
from latentscale.sources.file_tree import require_folder
from latentscale.sources.labels import Labels, labels_from_values
from latentscale.sources.listing import Item, Listing, origin_notes, origins_text
from latentscale.sources.source_options import SourceOptions

SPLIT_OF_NAME = {"train": "train", "t10k": "test", "test": "test"}

_SET_AND_PART = r"(?P<stem>(?:(?P<subset>emnist-[a-z]+|qmnist)-)?(?P<part>train|t10k|test))"
_IMAGES = re.compile(_SET_AND_PART + r"-images[.-]idx3-ubyte(?:\.gz)?")
_LABELS = re.compile(_SET_AND_PART + r"-labels[.-]idx[12]-(?:ubyte|byte|short|int)(?:\.gz)?")


class IdxFiles(NamedTuple):
    """A split's image file, and its label file if there is one."""

    images: Path
    labels: Path | None


def list_idx(path: Path | None, options: SourceOptions) -> Listing:
    """List the images in the files' order, so that datasets of equal size pair by number.

    Raises:
        UserError: a file is missing or damaged, or the numbers of images and labels differ.
    """
    root = require_folder(path, "idx")
    if options.labels not in ("auto", "none"):
        raise UserError(f"--labels {options.labels} is not for idx, whose labels are in idx files: give auto or none")
    subset, files = find_idx(root, options.subset)
    if options.labels == "none":
        files = {split: pair._replace(labels=None) for split, pair in files.items()}
    else:
        _refuse_unread_labels(root, files)
    stamps = {pair.images: file_stamp(pair.images) for pair in files.values()}
    found = {split: load_array(pair.images) for split, pair in files.items()}
    for split, images in found.items():
        if images.ndim != 3:
            raise UserError(f"{files[split].images} has shape {list(images.shape)}, not [images, height, width]")
    numbers = {split: _numbers(pair, len(found[split])) for split, pair in files.items()}
    labelled = all(values is not None for values in numbers.values())
    if not labelled and any(values is not None for values in numbers.values()):
        without = next(pair.images for split, pair in files.items() if numbers[split] is None)
        raise UserError(
            f"{without} has no label file next to it, but the other split has one: fetch the missing one, or build "
            "without labels by --labels none"
        )
    codes = sorted({int(code) for values in numbers.values() if values is not None for code in values})
    label_of = {code: label for label, code in enumerate(codes)}
    # EMNIST stores its images transposed
    transposed = subset.startswith("emnist-")
    splits: dict[str, list[Item]] = {}
    for split, pair in sorted(files.items(), key=lambda entry: entry[0] != "train"):
        values = numbers[split]
        splits.setdefault("train" if options.split != "published" else split, []).extend(
            Item(
                f"{pair.images.name}[{number}]",
                Row(str(pair.images.relative_to(root)), number, transposed),
                stamps[pair.images],
                label_of[values[number]] if labelled and values is not None else None,
                (("split", split), ("number", number)),
            )
            for number in range(len(found[split]))
        )
    labels = labels_from_values(("class",), (_names(root, subset, codes),)) if labelled else Labels()
    notes = origin_notes(
        splits,
        labels,
        origins_text({pair.labels.name: len(found[split]) for split, pair in files.items() if pair.labels} or {"": 0}),
    )
    return Listing(
        name=subset or root.resolve().name,
        licence="as published with the idx files",
        splits=splits,
        reader=ArrayReader(root),
        labels=labels,
        channels=1,
        uniform=True,
        read_in_place=stamps,
        same_in_test=options.split == "all",
        notes=notes,
    )


def is_idx_folder(folder: Path) -> bool:
    """Whether a folder holds images as idx files."""
    return any(_IMAGES.fullmatch(path.name) for path in folder.iterdir())


def find_idx(root: Path, subset: str) -> tuple[str, dict[str, IdxFiles]]:
    """Find the set in a folder (its name for EMNIST, else empty) and the files of each split.

    Raises:
        UserError: there is none, or there are several and ``subset`` is empty.
    """
    images, labels = _named(root, _IMAGES), _named(root, _LABELS)
    sets: dict[str, dict[str, IdxFiles]] = {}
    for stem, (match, path) in images.items():
        split = SPLIT_OF_NAME[match["part"]]
        of_stem = labels.get(stem)
        sets.setdefault(match["subset"] or "", {}).setdefault(split, IdxFiles(path, of_stem and of_stem[1]))
    if subset:
        sets = {name: files for name, files in sets.items() if name.removeprefix("emnist-") == subset}
    if not sets:
        wanted = f"emnist-{subset}-" if subset else ""
        raise UserError(f"{root} holds no {wanted}train-images-idx3-ubyte or its .gz: name the folder with idx files")
    if len(sets) > 1:
        names = ", ".join(name.removeprefix("emnist-") for name in sorted(sets))
        raise UserError(f"{root} holds several sets of images: choose one of {names} with --subset")
    return next(iter(sets.items()))


def _named(root: Path, pattern: re.Pattern[str]) -> dict[str, tuple[re.Match[str], Path]]:
    """The files whose name fits the pattern, by its ``stem``.

    An unpacked file is preferred to its archive. Kaggle's copy of MNIST has folders with the files' names, in which the
    file is once more: those files come last.
    """
    folders = [path for path in sorted(root.iterdir()) if pattern.fullmatch(path.name) and path.is_dir()]
    found: dict[str, tuple[re.Match[str], Path]] = {}
    for folder in (root, *folders):
        for path in sorted(folder.iterdir()):
            if (match := pattern.fullmatch(path.name)) and path.is_file():
                found.setdefault(match["stem"], (match, path))
    return found


def _refuse_unread_labels(root: Path, files: dict[str, IdxFiles]) -> None:
    for pair in files.values():
        match = _IMAGES.fullmatch(pair.images.name)
        if pair.labels is not None or match is None:
            continue
        for path in sorted(root.iterdir()):
            if path.name.startswith(match["stem"]) and "label" in path.name.lower():
                raise UserError(
                    f"{path} has a name of labels, but is no idx file of labels such as "
                    f"{match['stem']}-labels-idx1-ubyte: fetch that one, or build without labels by --labels none"
                )


def _numbers(files: IdxFiles, images: int) -> list[int] | None:
    if files.labels is None:
        return None
    labels = load_classes(files.labels)
    if len(labels) != images:
        raise UserError(
            f"{files.labels} has {len(labels)} labels, but {files.images.name} has {images} images: fetch both again"
        )
    return [int(label) for label in labels]


def _names(root: Path, subset: str, codes: list[int]) -> tuple[str, ...]:
    """The characters in EMNIST's mapping file, or the numbers where there is none."""
    mapping = root / f"{subset}-mapping.txt"
    if not subset or not mapping.is_file():
        return tuple(map(str, codes))
    characters: dict[int, str] = {}
    for line in mapping.read_text(encoding="ascii", errors="replace").splitlines():
        parts = line.split()
        if len(parts) < 2 or not all(part.isdigit() and int(part) < 0x110000 for part in parts):
            raise UserError(f"{mapping}: the line {line!r} does not map a label to characters: fetch it again")
        characters[int(parts[0])] = "".join(chr(int(part)) for part in parts[1:])
    return tuple(characters.get(code, str(code)) for code in codes)
