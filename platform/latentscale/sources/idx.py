"""MNIST, Fashion-MNIST, Kuzushiji-MNIST and EMNIST as idx files, gzipped or not."""

import re
from itertools import product
from pathlib import Path
from typing import NamedTuple

from latentscale.errors import UserError
from latentscale.sources.arrays import ArrayReader, Row, load_array, load_numbers
from latentscale.sources.file_tree import require_folder
from latentscale.sources.labels import Labels
from latentscale.sources.listing import Item, Listing
from latentscale.sources.source_options import SourceOptions

SPLIT_OF_NAME = {"train": "train", "t10k": "test", "test": "test"}

_IMAGES = re.compile(r"(?:(?P<subset>emnist-[a-z]+)-)?(?P<part>train|t10k|test)-images[.-]idx3-ubyte(?:\.gz)?")
_IMAGE_ENDING = re.compile(r"images[.-]idx3-ubyte(\.gz)?$")
# one number a sample, or QMNIST's eight, of which the first is the class
_LABEL_ENDINGS = ("idx1-ubyte", "idx2-int")


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
    subset, files = find_idx(root, options.subset)
    found = {split: load_array(pair.images) for split, pair in files.items()}
    for split, images in found.items():
        if images.ndim != 3:
            raise UserError(f"{files[split].images} has shape {list(images.shape)}, not [images, height, width]")
    numbers = {split: _numbers(pair, len(found[split])) for split, pair in files.items()}
    labelled = all(values is not None for values in numbers.values())
    if not labelled and any(values is not None for values in numbers.values()):
        without = next(pair.images for split, pair in files.items() if numbers[split] is None)
        raise UserError(
            f"{without} has no label file next to it, but the other split has one: fetch the missing one, or move "
            "the other away to build without labels"
        )
    codes = sorted({int(code) for values in numbers.values() if values is not None for code in values})
    label_of = {code: label for label, code in enumerate(codes)}
    # EMNIST stores its images transposed
    transposed = bool(subset)
    splits: dict[str, list[Item]] = {}
    for split, pair in sorted(files.items(), key=lambda entry: entry[0] != "train"):
        status = pair.images.stat()
        stamp = (status.st_size, status.st_mtime_ns)
        values = numbers[split]
        splits.setdefault("train" if options.split != "published" else split, []).extend(
            Item(
                f"{pair.images.name}[{number}]",
                Row(str(pair.images.relative_to(root)), number, transposed),
                stamp,
                label_of[values[number]] if labelled and values is not None else None,
                (("split", split), ("number", number)),
            )
            for number in range(len(found[split]))
        )
    return Listing(
        name=subset or root.resolve().name,
        licence="as published with the idx files",
        splits=splits,
        reader=ArrayReader(root),
        labels=Labels(_names(root, subset, codes), of=("class",)) if labelled else Labels(),
        channels=1,
        uniform=True,
        same_in_test=options.split == "all",
    )


def is_idx_folder(folder: Path) -> bool:
    """Whether a folder holds images as idx files."""
    return any(_IMAGES.fullmatch(path.name) for path in folder.iterdir())


def find_idx(root: Path, subset: str) -> tuple[str, dict[str, IdxFiles]]:
    """Find the set in a folder (its name for EMNIST, else empty) and the files of each split.

    Raises:
        UserError: there is none, or there are several and ``subset`` is empty.
    """
    sets: dict[str, dict[str, IdxFiles]] = {}
    for path in sorted(root.iterdir()):
        # unpacking may leave a folder of the file's name beside the file, or around it
        file = path / path.name if (path / path.name).is_file() else path
        if (match := _IMAGES.fullmatch(path.name)) and file.is_file():
            labels = [
                candidate
                for kind, separator, ending in product(_LABEL_ENDINGS, "-.", ("", ".gz"))
                for name in [_IMAGE_ENDING.sub(f"labels{separator}{kind}{ending}", path.name)]
                for candidate in (root / name, root / name / name)
                if candidate.is_file()
            ]
            # an unpacked file sorts before its archive, so it is preferred
            split, path = SPLIT_OF_NAME[match["part"]], file
            sets.setdefault(match["subset"] or "", {}).setdefault(split, IdxFiles(path, next(iter(labels), None)))
    if subset:
        sets = {name: files for name, files in sets.items() if name.removeprefix("emnist-") == subset}
    if not sets:
        wanted = f"emnist-{subset}-" if subset else ""
        raise UserError(f"{root} holds no {wanted}train-images-idx3-ubyte or its .gz: name the folder with idx files")
    if len(sets) > 1:
        names = ", ".join(name.removeprefix("emnist-") for name in sorted(sets))
        raise UserError(f"{root} holds several sets of images: choose one of {names} with --subset")
    return next(iter(sets.items()))


def _numbers(files: IdxFiles, images: int) -> list[int] | None:
    if files.labels is None:
        return None
    labels = load_numbers(files.labels)
    if labels.shape != (images,):
        raise UserError(
            f"{files.labels} has {labels.size} labels, but {files.images.name} has {images} images: fetch both again"
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
