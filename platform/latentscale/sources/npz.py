"""Images as NumPy arrays: ``.npz`` and ``.npy`` files such as those of ImageNet32, Kuzushiji-49, MedMNIST and Keras."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latentscale.containers.input_files import InputFile, InputFiles, input_files
from latentscale.containers.numpy_files import StoredArray, list_arrays
from latentscale.errors import UserError
from latentscale.sources.file_splits import FileSplits, split_files
from latentscale.sources.labels import Labels, labels_from_columns
from latentscale.sources.listing import Item, Listing, UnreadableItem, display_name, origin_notes, origins_text
from latentscale.sources.source_options import SourceOptions
from latentscale.sources.split_folders import SPLITS
from latentscale.sources.value_labels import come_sorted, label_texts

_IMAGE_WORDS = frozenset(("images", "image", "imgs", "img", "data", "x", "pixels", "pictures", "samples"))
_LABEL_WORDS = frozenset(("labels", "label", "y", "targets", "target", "classes", "class", "lbls", "lbl"))
_UNNAMED = re.compile(r"arr_\d+")
_IMAGENET32 = re.compile(r"(train_data_batch_\d+|val_data)")
_OBJECTS = "Python objects, which are never unpickled"
_STACK = "save them anew where you trust them, np.savez(FILE, images=np.stack(list(array)), labels=…)"
_ARRAY_WORDS = "np.uint8 of shape [N, H, W], [N, H, W, 3] or [N, 3, H, W]"


@dataclass(frozen=True)
class Form:
    """How a row of an array is an image.

    Attributes:
        shape: of a row, as the layout orders it.
        chw: whether channels come first.
    """

    shape: tuple[int, ...]
    chw: bool = False

    def image(self, row: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """``[H, W]`` or ``[H, W, 3]``."""
        image = np.asarray(row).reshape(self.shape)
        image = image.transpose(1, 2, 0) if self.chw else image
        return image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image

    @property
    def size(self) -> tuple[int, ...]:
        """(height, width)."""
        return self.shape[1:] if self.chw else self.shape[:2]

    @property
    def channels(self) -> int:
        """1 or 3."""
        return 1 if len(self.shape) == 2 else self.shape[0] if self.chw else self.shape[2]


class Row(NamedTuple):
    """The place of an image: the number of its array, and of its row there."""

    array: int
    number: int


@dataclass(frozen=True)
class NpzReader:
    """Reads rows of arrays; each process loads a compressed array once."""

    arrays: tuple[StoredArray, ...]
    forms: tuple[Form, ...]

    def read(self, item: Item) -> NDArray[np.uint8]:
        row: Row = item.place
        try:
            return self.forms[row.array].image(self.arrays[row.array].row(row.number))
        except UserError as error:
            raise UnreadableItem(f"is lost: {error}") from error


@dataclass
class _Group:
    """Images that belong together, and their labels."""

    file: InputFile
    images: StoredArray
    name: str
    labels: StoredArray | None = None


@dataclass
class _Sorted:
    """Arrays by what they hold, each with its file and the name of its group."""

    images: list[tuple[InputFile, StoredArray, tuple[str, ...]]] = field(default_factory=list)
    labels: list[tuple[InputFile, StoredArray, tuple[str, ...]]] = field(default_factory=list)
    others: list[tuple[InputFile, StoredArray]] = field(default_factory=list)


def list_npz(paths: Sequence[Path], options: SourceOptions) -> Listing:
    """List the rows of arrays of images, with the labels and splits that the names of files and arrays say.

    Raises:
        UserError: a file is damaged; there are no images, or what holds images or labels is unclear; or an array has
            another type or shape.
    """
    if options.labels not in ("auto", "none"):
        raise UserError(f"--labels {options.labels} is not used by npz: use --label-field NAME, or --labels none")
    if options.label_field and options.labels == "none":
        raise UserError("--label-field and --labels none contradict each other: leave one out")
    given = input_files(paths, (".npz", ".npy"), "npz", options.follow_symlinks)
    found = _sorted(given, options)
    groups = _groups(found, given, options)
    names = [group.name for group in groups]
    splits = (split_files(names, options, given.location) or _all_train(groups, options, given)).merged(options.split)
    groups = [group for group, split in zip(groups, splits.of_file, strict=True) if split]
    of_group = [split for split in splits.of_file if split]
    forms = [_form(group.images, options) for group in groups]
    labels, numbers, origin = _labels(groups)
    items: dict[str, list[Item]] = {split: [] for split in SPLITS if split in of_group}
    for place, (group, split) in enumerate(zip(groups, of_group, strict=True)):
        items[split] += _items(place, group, numbers[place], len(groups))
    order = [item.label for split in items.values() for item in split]
    return Listing(
        name=given.name,
        licence="unknown",
        splits=items,
        reader=NpzReader(tuple(group.images for group in groups), tuple(forms)),
        tree=given.tree,
        read_in_place=given.stamps(),
        labels=labels,
        channels=forms[0].channels if len({form.channels for form in forms}) == 1 else None,
        uniform=len({form.size for form in forms}) == 1,
        sorted_by_label=bool(labels.names) and come_sorted(order),
        same_in_test=options.split == "all",
        notes=[*given.notes, *_ignored(found), *splits.notes, *origin_notes(items, labels, origin)],
    )


def _all_train(groups: Sequence[_Group], options: SourceOptions, given: InputFiles) -> FileSplits:
    if options.splits:
        there = ", ".join(display_name(group.name) for group in groups[:10])
        raise UserError(f"--splits {options.splits} names none of the arrays of {given.location}, which are {there}")
    return FileSplits(["train"] * len(groups))


def _sorted(given: InputFiles, options: SourceOptions) -> _Sorted:
    """Tell images from labels."""
    found = _Sorted()
    for file in given.files:
        stem = file.path.stem
        arrays = list_arrays(file.path)
        for array in arrays:
            name = array.key if array.member else stem
            if options.image_field or options.label_field:
                kind = "images" if name == options.image_field else "labels" if name in options.label_field else ""
                if kind:
                    getattr(found, kind).append((file, array, _folder(file)))
                    continue
            if not array.member or (len(arrays) == 1 and _UNNAMED.fullmatch(name)):
                # the file's name says it
                kind, group = _kind(stem), (*_folder(file), *_rest(stem))
            else:
                kind, group = _kind(name), (*_folder(file), stem, *_rest(name))
            if options.image_field and kind == "images":
                kind = ""
            if options.label_field and kind == "labels":
                kind = ""
            if kind == "images":
                found.images.append((file, array, group))
            elif kind == "labels":
                found.labels.append((file, array, group))
            else:
                found.others.append((file, array))
    if options.labels == "none":
        found.labels = []
    for option, wanted, there in (
        ("image", [options.image_field] if options.image_field else [], found.images),
        ("label", options.label_field, found.labels),
    ):
        names = {array.key or file.path.stem for file, array, _ in there}
        for name in wanted:
            if name not in names:
                have = sorted({array.key or file.path.stem for file, array in _all(found)})
                raise UserError(
                    f"--{option}-field {name}: {given.location} holds the arrays "
                    f"{', '.join(map(display_name, have[:20]))}: name one of these"
                )
    if not found.images:
        _take_only_images(found, given)
    return found


def _take_only_images(found: _Sorted, given: InputFiles) -> None:
    """The only array that can be images is taken, where names say nothing."""
    candidates = [(file, array) for file, array in found.others if array.dtype == "|u1" and len(array.shape) >= 2]
    if not candidates:
        _refuse_objects([array for _, array in found.others])
    if len(candidates) != 1:
        have = ", ".join(display_name(array.key or file.path.name) for file, array in _all(found)[:20]) or "none"
        raise UserError(
            f"{given.location} holds no array that is named images, data or x (its arrays: {have}): name the images "
            "with --image-field NAME"
        )
    file, array = candidates[0]
    found.others.remove(candidates[0])
    found.images.append((file, array, (*_folder(file), file.path.stem)))


def _refuse_objects(arrays: Sequence[StoredArray]) -> None:
    for array in arrays:
        if "O" in array.dtype:
            raise UserError(f"{array} holds {_OBJECTS}: if these are images, {_STACK}")


def _groups(found: _Sorted, given: InputFiles, options: SourceOptions) -> list[_Group]:
    """Images with their labels."""
    groups: dict[tuple[str, ...], _Group] = {}
    for file, array, key in found.images:
        key = (*key, file.name) if options.image_field else key
        if key in groups:
            raise UserError(f"{groups[key].images} and {array} may both be the images: choose with --image-field NAME")
        stem = file.name.rpartition(".")[0]
        groups[key] = _Group(file, array, f"{stem}/{array.key}" if array.member else stem)
    for file, array, key in found.labels:
        key = (*key, file.name) if options.label_field and (*key, file.name) in groups else key
        if key not in groups and len(found.images) == len(found.labels) == 1:
            key = next(iter(groups))
        if key not in groups:
            raise UserError(
                f"{array} holds labels, but no images go with it by name, as train-images and train-labels do: rename "
                "it, or use --labels none"
            )
        if (other := groups[key].labels) is not None:
            raise UserError(f"{other} and {array} may both be the labels: choose with --label-field NAME")
        groups[key].labels = array
    labelled = [group for group in groups.values() if group.labels is not None]
    for group in groups.values():
        if group.labels is not None:
            continue
        if labelled:
            raise UserError(
                f"{group.images} has no labels, but {labelled[0].images} has: fetch or name them, leave a split out "
                "with --splits, or use --labels none"
            )
        if options.labels != "none":
            _refuse_unnamed_labels(group, found)
    return list(groups.values())


def _refuse_unnamed_labels(group: _Group, found: _Sorted) -> None:
    """Refuse arrays that may be labels without being named so."""
    count = group.images.shape[0] if group.images.shape else 0
    for file, array in found.others:
        name = array.key or file.path.stem
        is_long_enough = array.shape in ((count,), (count, 1)) and array.dtype[1] in "iubUS"
        if is_long_enough and (not array.member or file == group.file):
            raise UserError(
                f"{array} may hold the labels of {group.images}: take it with --label-field {display_name(name)}, or "
                "build without labels by --labels none"
            )


def _labels(groups: Sequence[_Group]) -> tuple[Labels, list[list[int] | None], str]:
    if groups[0].labels is None:
        return Labels(), [None] * len(groups), ""
    texts: list[str] = []
    for group in groups:
        assert group.labels is not None
        count = group.images.shape[0] if group.images.shape else 0
        array = group.labels
        if array.shape not in ((count,), (count, 1)):
            raise UserError(
                f"{array} has shape {list(array.shape)}, but {group.images} holds {count} images: labels must be one "
                "number or name for each (of one-hot labels, save argmax(1))"
            )
        if array.dtype[1] not in "iuUS":
            anew = "save them anew as labels.astype(str)" if "O" in array.dtype else "save them anew"
            raise UserError(
                f"{array} holds {_type(array)}: labels must be whole numbers or names; {anew}, name others "
                "with --label-field, or use --labels none"
            )
        texts += label_texts(array.load().reshape(-1).tolist(), str(array))
    labels, numbers = labels_from_columns(("label",), [texts])
    of_group: list[list[int] | None] = []
    start = 0
    for group in groups:
        of_group.append(numbers[start : start + group.images.shape[0]])
        start += group.images.shape[0]
    return labels, of_group, origins_text({str(group.labels): group.images.shape[0] for group in groups})


def _items(place: int, group: _Group, labels: list[int] | None, groups: int) -> list[Item]:
    name = f"{group.file.name}/{group.images.key}" if group.images.member else group.file.name
    stamp = group.file.stamp
    return [
        Item(
            f"{name}[{number}]",
            Row(place, number),
            stamp,
            None if labels is None else labels[number],
            (("number", number),),
        )
        for number in range(group.images.shape[0])
    ]


def _form(array: StoredArray, options: SourceOptions) -> Form:
    """How the rows of an array are images.

    Raises:
        UserError: they are not, or it is unclear how.
    """
    shape = array.shape
    shown = f"{array} has shape {list(shape)}"
    if array.dtype != "|u1":
        way = f": {_STACK}" if "O" in array.dtype else ""
        raise UserError(f"{array} holds {_type(array)}, but images must be {_ARRAY_WORDS}{way}")
    if len(shape) < 2 or 0 in shape:
        raise UserError(f"{shown}, but images must be {_ARRAY_WORDS}")
    if len(shape) == 2:
        return _flat_form(array, options.layout, shown)
    if len(shape) == 3:
        if shape[2] in (1, 3, 4) or shape[1] in (1, 3, 4):
            raise UserError(
                f"{shown}: this may be one image, or rows of values; images must be {_ARRAY_WORDS} (of one image, save "
                "image[None])"
            )
        return Form(shape[1:])
    first, last = shape[1] in (1, 3), shape[-1] in (1, 3)
    if len(shape) == 4 and first and last and not options.layout:
        raise UserError(f"{shown}, in which channels may be first or last: say --layout chw or --layout hwc")
    chw = first if not options.layout else options.layout == "chw"
    if len(shape) > 4 or not (first if chw else last):
        raise UserError(f"{shown}, but images must be {_ARRAY_WORDS}")
    return Form(shape[1:], chw)


def _flat_form(array: StoredArray, layout: str, shown: str) -> Form:
    values = array.shape[1]
    if (side := math.isqrt(values)) ** 2 == values:
        return Form((side, side))
    if values % 3 or (side := math.isqrt(values // 3)) ** 2 != values // 3:
        raise UserError(
            f"{shown}, but a row is neither a square grey nor a square RGB image: save it as {_ARRAY_WORDS}"
        )
    if not layout and _IMAGENET32.fullmatch(array.path.stem) and array.key == "data":
        layout = "chw"
    if not layout:
        raise UserError(
            f"{shown}: say how a row is ordered, --layout chw (all red values first, as CIFAR and ImageNet32 do) or "
            "--layout hwc (red, green, blue of each pixel)"
        )
    return Form((3, side, side), True) if layout == "chw" else Form((side, side, 3))


def _type(array: StoredArray) -> str:
    return _OBJECTS if "O" in array.dtype else str(np.dtype(array.dtype))


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", name.casefold()) if word]


def _kind(name: str) -> str:
    """``images`` or ``labels``; empty if a name says neither, or both."""
    words = set(_words(name))
    is_images, is_labels = bool(words & _IMAGE_WORDS), bool(words & _LABEL_WORDS)
    return "" if is_images == is_labels else "images" if is_images else "labels"


def _rest(name: str) -> tuple[str, ...]:
    return tuple(word for word in _words(name) if word not in _IMAGE_WORDS | _LABEL_WORDS)


def _folder(file: InputFile) -> tuple[str, ...]:
    return tuple(file.name.split("/")[:-1])


def _all(found: _Sorted) -> list[tuple[InputFile, StoredArray]]:
    named = [(file, array) for file, array, _ in (*found.images, *found.labels)]
    return [*named, *found.others]


def _ignored(found: _Sorted) -> list[str]:
    names: list[Any] = sorted({array.key or file.path.name for file, array in found.others})
    return [f"ignored the arrays {', '.join(map(display_name, names[:10]))}"] if names else []
