"""MNIST-C: one folder per corruption, with ``test_images.npy``; its image i is MNIST's test image i, corrupted.

Samples have two labels, corruption and digit. They are ordered by corruption, then in MNIST's order: if every
corruption has n images, sample c·n + i pairs with original i. The originals, if given, come first, as the corruption
``identity``.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentscale.containers.input_files import file_stamp
from latentscale.errors import UserError
from latentscale.sources.arrays import ArrayReader, Row, load_array, load_digits
from latentscale.sources.file_tree import require_folder
from latentscale.sources.idx import find_idx
from latentscale.sources.labels import Labels, labels_from_values
from latentscale.sources.listing import Item, Listing
from latentscale.sources.source_options import SourceOptions

IDENTITY = "identity"
LICENCE = "MNIST-C (Mu and Gilmer 2019), CC BY 4.0, made from MNIST, https://github.com/google-research/mnist-c"

_DIGITS = tuple("0123456789")


class _Corruption(NamedTuple):
    name: str
    file: Path
    images: NDArray[np.uint8]
    digits: NDArray[np.uint8] | None


def list_mnist_c(path: Path | None, options: SourceOptions) -> Listing:
    """List every corruption's test images; its training images, if there are any, become ``train``.

    Raises:
        UserError: a file is missing or damaged, or does not pair with the originals.
    """
    root = require_folder(path, "mnist-c").resolve()
    names = _corruptions(root, options)
    splits: dict[str, list[Item]] = {}
    labelled, sizes = True, []
    for part in ("train", "test"):
        found = [_load(root, name, part) for name in names if (root / name / f"{part}_images.npy").is_file()]
        if not found:
            continue
        if options.originals is not None:
            found = _paired(_originals(options.originals, part), found, part)
        sizes.append((part, found))
        labelled = labelled and all(corruption.digits is not None for corruption in found)
    if not sizes:
        raise UserError(f"{root} holds no test_images.npy: name the folder that holds one folder per corruption")
    kinds = list(dict.fromkeys(corruption.name for _, found in sizes for corruption in found))
    if labelled:
        labels = labels_from_values(("corruption", "digit"), (kinds, _DIGITS))
    else:
        labels = Labels(tuple(kinds), of=("corruption",))
    for part, found in sizes:
        splits[part] = [
            item for corruption in found for item in _items(corruption, kinds.index(corruption.name), labelled, part)
        ]
    notes = [] if labelled else ["there are no digit labels: --originals FOLDER reads them from MNIST's idx files"]
    return Listing(
        name="mnist-c",
        licence=LICENCE,
        splits=splits,
        # rows have full paths: the originals are in another folder
        reader=ArrayReader(Path()),
        labels=labels,
        channels=1,
        uniform=True,
        read_in_place={corruption.file: file_stamp(corruption.file) for _, found in sizes for corruption in found},
        notes=notes,
    )


def _corruptions(root: Path, options: SourceOptions) -> list[str]:
    here = sorted(folder.name for folder in root.iterdir() if any(folder.glob("t*_images.npy")))
    if not here:
        raise UserError(
            f"{root} holds no folder with test_images.npy: name the folder that holds one folder per corruption"
        )
    for name in options.corruptions:
        if name not in here:
            raise UserError(f"--corruptions {name} is not in {root}: choose from {', '.join(here)}")
    chosen = list(dict.fromkeys(options.corruptions or here))
    if options.originals is not None and IDENTITY in chosen:
        chosen.remove(IDENTITY)
    return sorted(chosen, key=lambda name: name != IDENTITY)


def _load(root: Path, name: str, part: str) -> _Corruption:
    file = root / name / f"{part}_images.npy"
    images = load_array(file)
    if images.ndim != 3:
        raise UserError(f"{file} has shape {list(images.shape)}, not [images, height, width, 1]: fetch it again")
    labels = _labels_file(root / name, part)
    digits = load_digits(labels, len(images)) if labels.is_file() else None
    return _Corruption(name, file, images, digits)


def _labels_file(folder: Path, part: str) -> Path:
    return folder / f"{part}_labels.npy"


def _originals(folder: Path, part: str) -> _Corruption:
    require_folder(folder, "mnist-c", "the originals")
    _, files = find_idx(folder, "")
    if part not in files or (labels := files[part].labels) is None:
        raise UserError(
            f"--originals {folder} lacks the images or labels of MNIST's {part} split: it must hold all four files"
        )
    images = load_array(files[part].images)
    return _Corruption(IDENTITY, files[part].images.resolve(), images, load_digits(labels, len(images)))


def _paired(originals: _Corruption, found: list[_Corruption], part: str) -> list[_Corruption]:
    count = max(len(corruption.images) for corruption in found)
    for corruption in found:
        if len(corruption.images) > len(originals.images) or corruption.images.shape[1:] != originals.images.shape[1:]:
            raise UserError(
                f"{corruption.file} has images of shape {list(corruption.images.shape)}, but --originals has "
                f"{list(originals.images.shape)}: they do not pair; name the originals that these images were made from"
            )
    assert originals.digits is not None
    for corruption in found:
        if corruption.digits is None:
            continue
        differ = np.flatnonzero(corruption.digits != originals.digits[: len(corruption.digits)])
        if len(differ):
            here, there = (int(digits[differ[0]]) for digits in (corruption.digits, originals.digits))
            raise UserError(
                f"{_labels_file(corruption.file.parent, part)} says that image {differ[0]} is a {here}, but "
                f"--originals says that it is a {there}: name the originals that these images were made from"
            )
    first = originals._replace(images=originals.images[:count], digits=originals.digits[:count])
    return [first, *(c._replace(digits=originals.digits[: len(c.images)]) for c in found)]


def _items(corruption: _Corruption, kind: int, labelled: bool, part: str) -> list[Item]:
    stamp = file_stamp(corruption.file)
    items = []
    for number in range(len(corruption.images)):
        label = kind
        if labelled:
            assert corruption.digits is not None
            label = kind * len(_DIGITS) + int(corruption.digits[number])
        items.append(
            Item(
                f"{corruption.name}/{part}_images[{number}]",
                Row(str(corruption.file), number),
                stamp,
                label,
                (("corruption", corruption.name), ("split", part), ("number", number)),
            )
        )
    return items
