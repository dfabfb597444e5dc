"""Splits of images, taken from the names of their top folders."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from latentscale.errors import UserError
from latentscale.sources.listing import display_name
from latentscale.wording import counted

SPLITS = ("train", "val", "test")

_SPLIT_OF_WORD = {
    **dict.fromkeys(("train", "training", "trainset", "trainingset", "traindata"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "dev", "devset", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "testingset", "testdata"), "test"),
}
# what stands beside such a word: training_set, seg_test, train_images, train2017
_FILLERS = {"set", "data", "dataset", "split", "image", "images", "img", "imgs", "photos", "pictures", "seg"}


@dataclass
class SplitFolders:
    """Images assigned to splits.

    Attributes:
        splits: the indices of each split's images.
        below: the name of every image without the folder of its split.
        left_out: the indices of images that no split takes.
        notes: lines to print for the user.
    """

    splits: dict[str, list[int]]
    below: list[str]
    left_out: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def split_of_folder(name: str) -> str:
    """The split that a folder's name says: ``Training``, ``train2017`` and ``seg_train`` are train; empty if none."""
    words = [word for word in re.split(r"[\W_]+", name.casefold().rstrip("0123456789")) if word]
    named = [word for word in words if word not in _FILLERS]
    return _SPLIT_OF_WORD.get(named[0], "") if len(named) == 1 else ""


def parse_splits(text: str) -> dict[str, str]:
    """Parse ``train=Training,test=Testing`` into the split of each folder.

    Raises:
        UserError: naming the part that is wrong.
    """
    split_of: dict[str, str] = {}
    for part in (part.strip() for part in text.split(",") if part.strip()):
        split, equals, folder = (word.strip() for word in part.partition("="))
        folder = folder.strip("/")
        if split not in SPLITS or not equals or not folder:
            raise UserError(
                f"--splits {part} is not allowed: each part must be train=FOLDER, val=FOLDER or test=FOLDER, such as "
                "--splits train=Training,test=Testing"
            )
        if folder in split_of:
            raise UserError(f"--splits names the folder {folder} twice: a folder belongs to one split")
        split_of[folder] = split
    return split_of


def find_splits(names: Sequence[str], wanted: str, chosen: Mapping[str, str], location: str) -> SplitFolders:
    """Assign names to splits by their top folders.

    Args:
        names: names with ``/`` between folders.
        wanted: ``published``: the splits that the folders name; ``all`` or ``none``: one split, ``train``.
        chosen: the split of each folder as the user gives it; if empty, folders that are named like splits are splits.
        location: the folder or archive, for messages.

    Raises:
        UserError: only some of the names are in folders of splits, two folders name one split, or folders look like
            splits without being named so.
    """
    tops = [name.partition("/")[0] if "/" in name else "" for name in names]
    folders = sorted(set(tops) - {""})
    if chosen:
        if wanted == "none":
            raise UserError("--splits and --split none contradict each other: leave one out")
        split_of = _chosen_folders(chosen, folders, location)
    else:
        split_of = {folder: split for folder in folders if (split := split_of_folder(folder))}
    inside = [top in split_of for top in tops]
    if not any(inside):
        if wanted == "published":
            _refuse_unnamed_splits(names, location)
        return SplitFolders({"train": list(range(len(names)))}, list(names))
    below = [name.partition("/")[2] if is_in else name for name, is_in in zip(names, inside, strict=True)]
    found = SplitFolders({}, below)
    if not all(inside):
        strays = [index for index, is_in in enumerate(inside) if not is_in]
        if not chosen and wanted == "none":
            return SplitFolders({"train": list(range(len(names)))}, list(names))
        if not chosen:
            shown = ", ".join(display_name(f"{folder}/") for folder in sorted(split_of))
            more = f" and {len(strays) - 1} more images do" if len(strays) > 1 else " does"
            raise UserError(
                f"{location} has splits in {shown}, but {display_name(names[strays[0]])}{more} not lie in one of them: "
                "move the images outside into a split or away, name the splits' folders with "
                f"{_example(split_of)}, or treat all folders as labels of one split with --split none"
            )
        found.left_out = strays
        found.notes.append(
            f"left out {counted(len(strays), 'image')} outside the folders of --splits, such as "
            f"{display_name(names[strays[0]])}"
        )
    if not chosen:
        _refuse_two_of_one_split(split_of, location)
    for index, top in enumerate(tops):
        if inside[index]:
            found.splits.setdefault(split_of[top] if wanted != "none" else "train", []).append(index)
    if wanted == "all":
        found.splits = {"train": sorted(index for indices in found.splits.values() for index in indices)}
    elif "test" not in found.splits and "val" in found.splits:
        found.splits["test"] = found.splits.pop("val")
        folder = next(folder for folder, split in split_of.items() if split == "val")
        found.notes.append(f"{display_name(folder)}/ is the test split, for there is no other")
    return found


def _chosen_folders(chosen: Mapping[str, str], folders: Sequence[str], location: str) -> dict[str, str]:
    for folder in chosen:
        if folder not in folders:
            there = ", ".join(map(display_name, folders[:10])) or "no folder"
            raise UserError(f"--splits names the folder {display_name(folder)}, but {location} holds {there}")
    return dict(chosen)


def _refuse_two_of_one_split(split_of: Mapping[str, str], location: str) -> None:
    first: dict[str, str] = {}
    for folder, split in split_of.items():
        if (other := first.setdefault(split, folder)) != folder:
            raise UserError(
                f"{location} holds {display_name(other)}/ and {display_name(folder)}/, which both name the {split} "
                f"split: say which is which, such as --splits {split}={display_name(folder)}; a folder that it does "
                "not name is left out"
            )


def _refuse_unnamed_splits(names: Sequence[str], location: str) -> None:
    """Refuse top folders that hold folders of the same names: these are the classes, and the top folders are splits."""
    classes: dict[str, set[str]] = {}
    for name in names:
        parts = name.split("/")
        if len(parts) < 3:
            return
        classes.setdefault(parts[0], set()).add(parts[1])
    by_content: dict[frozenset[str], list[str]] = {}
    for top, below in classes.items():
        by_content.setdefault(frozenset(below), []).append(top)
    for inner, tops in by_content.items():
        if len(tops) > 1 and len(inner) > 1:
            first, second = map(display_name, sorted(tops)[:2])
            shown = ", ".join(map(display_name, sorted(inner)[:3]))
            raise UserError(
                f"{location}: {first}/ and {second}/ hold folders of the same names ({shown}), as splits do: name the "
                f"splits with --splits train={first},test={second}, or take all images for training with --split none"
            )


def _example(split_of: Mapping[str, str]) -> str:
    return "--splits " + ",".join(f"{split}={display_name(folder)}" for folder, split in sorted(split_of.items()))
