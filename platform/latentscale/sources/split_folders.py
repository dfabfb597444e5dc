"""Splits of images, taken from the names of their top folders."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, takewhile

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

# of thousands of classes the first few hundred show whether they hold the same folders
_MOST_COMPARED = 300


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
        folder = "/".join(word for word in folder.replace("\\", "/").split("/") if word not in ("", "."))
        if split not in SPLITS or not equals or not folder:
            raise UserError(
                f"--splits {part} is not allowed: each part must be train=FOLDER, val=FOLDER or test=FOLDER, such as "
                "--splits train=Training,test=Testing"
            )
        if folder in split_of:
            raise UserError(f"--splits names the folder {folder} twice: a folder belongs to one split")
        split_of[folder] = split
    return split_of


def common_folders(names: Sequence[str]) -> list[str]:
    """The folders that contain all names, outermost first."""
    folders = [name.split("/")[:-1] for name in names]
    first, last = (min(folders), max(folders)) if folders else ([], [])
    return [folder for folder, other in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))]


def find_splits(names: Sequence[str], wanted: str, chosen: Mapping[str, str], location: str) -> SplitFolders:
    """Assign names to splits by the folders at the top, below folders that contain all names.

    Args:
        names: names with ``/`` between folders.
        wanted: ``published``: the splits that the folders name; ``all`` or ``none``: one split, ``train``.
        chosen: the split of each folder as the user gives it; if empty, folders that are named like splits are splits.
            A folder is at the top or further down, and ``*`` is any name of a folder, which stays as a class.
        location: the folder or archive, for messages.

    Raises:
        UserError: only some of the names are in folders of splits, two folders name one split, or folders look like
            splits without being named so.
    """
    common = _above_splits(names)
    if chosen:
        if wanted == "none":
            raise UserError("--splits and --split none contradict each other: leave one out")
        split_of = dict(chosen)
        tops, below = _in_chosen_folders(names, common, chosen, location)
    else:
        names = [name.removeprefix(common) for name in names]
        tops = [name.partition("/")[0] if "/" in name else "" for name in names]
        split_of = _splits_of_folders(set(tops) - {""})
        below = [name.partition("/")[2] if top in split_of else name for name, top in zip(names, tops, strict=True)]
    inside = [top in split_of for top in tops]
    if not any(inside):
        if wanted == "published":
            _refuse_unnamed_splits(names, location)
        return SplitFolders({"train": list(range(len(names)))}, list(names))
    _strip_repeated(tops, below, split_of)
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


def _above_splits(names: Sequence[str]) -> str:
    """The folders that contain all names, ending in ``/``, but none that is a split.

    It and the folders below it give splits and labels.
    """
    common = common_folders(names)
    whole = "".join(f"{folder}/" for folder in common)
    tops = {name.removeprefix(whole).partition("/")[0] if "/" in name.removeprefix(whole) else "" for name in names}
    if "" in tops or len(_splits_of_folders(tops)) < len(tops):
        common = list(takewhile(lambda folder: not split_of_folder(folder), common))
    return "".join(f"{folder}/" for folder in common)


def _splits_of_folders(folders: Collection[str]) -> dict[str, str]:
    """The folders that are splits by their own names, or by those of others that differ in the split's word alone."""
    found = {folder: split for folder in sorted(folders) if (split := split_of_folder(folder))}
    alike: dict[tuple[str, ...], dict[str, str]] = {}
    for folder in sorted(set(folders) - found.keys()):
        words = re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", folder).casefold())
        named = [number for number, word in enumerate(words) if word in _SPLIT_OF_WORD]
        if len(named) == 1:
            others = (*words[: named[0]], "", *words[named[0] + 1 :])
            alike.setdefault(others, {})[folder] = _SPLIT_OF_WORD[words[named[0]]]
    for group in alike.values():
        if len(set(group.values())) > 1:
            found |= group
    return found


def _in_chosen_folders(
    names: Sequence[str], common: str, chosen: Mapping[str, str], location: str
) -> tuple[list[str], list[str]]:
    """For each name the chosen folder that it is in, empty if none, and the name below that folder."""
    tops, below = [""] * len(names), list(names)
    whole = "".join(f"{folder}/" for folder in common_folders(names))
    for folder in chosen:
        parts = ("([^/]+)/" if part == "*" else "[^/]*".join(map(re.escape, part.split("*"))) + "/"
                 for part in folder.split("/"))  # fmt: skip
        pattern = re.compile("".join(parts) + "(.+)", re.DOTALL)
        for prefix in dict.fromkeys(("", common, whole)):
            hits = [(index, match) for index, name in enumerate(names)
                    if (match := pattern.fullmatch(name.removeprefix(prefix)))]  # fmt: skip
            if hits:
                break
        else:
            there = sorted(
                {top for name in names if (top := name.removeprefix(whole).rpartition("/")[0].split("/")[0])}
            )
            shown = ", ".join(map(display_name, there[:10])) or "no folder"
            raise UserError(f"--splits names the folder {display_name(folder)}, but {location} holds {shown}")
        for index, match in hits:
            if tops[index]:
                raise UserError(
                    f"--splits names the folders {display_name(tops[index])} and {display_name(folder)}, which both "
                    f"hold {display_name(names[index])}: name folders of different images"
                )
            tops[index], below[index] = folder, "/".join(match.groups())
    return tops, below


def _strip_repeated(tops: Sequence[str], below: list[str], split_of: Mapping[str, str]) -> None:
    """Leave out a folder that repeats its split's name, as in ``training_set/training_set/cat/1.png``."""
    indices: dict[str, list[int]] = {}
    for index, top in enumerate(tops):
        if top in split_of:
            indices.setdefault(top, []).append(index)
    for top, inside in indices.items():
        inner = {below[index].partition("/")[0] if "/" in below[index] else "" for index in inside}
        name = inner.pop() if len(inner) == 1 else ""
        if name and (name == top.rpartition("/")[2] or split_of_folder(name) == split_of[top]):
            for index in inside:
                below[index] = below[index].partition("/")[2]


def _refuse_two_of_one_split(split_of: Mapping[str, str], location: str) -> None:
    first: dict[str, str] = {}
    for folder, split in split_of.items():
        if (other := first.setdefault(split, folder)) != folder:
            raise UserError(
                f"{location} holds {display_name(other)}/ and {display_name(folder)}/, which both name the {split} "
                f"split: join them with {_example(split_of)}, or name fewer; a folder that is not named is left out"
            )


def _refuse_unnamed_splits(names: Sequence[str], location: str) -> None:
    """Refuse top folders of which one holds all the folders of another: these are the classes, and the top ones splits.

    Refuse too where folders below the top are named like splits.
    """
    leaves: dict[str, set[str]] = {}
    within: dict[str, set[str]] = {}
    inner: set[str] = set()
    for name in names:
        top, *below = name.split("/")[:-1] or [""]
        path = "/".join(below)
        if below and path not in leaves.setdefault(top, set()):
            leaves[top].add(path)
            inner.add(below[0])
            within.setdefault(top, set()).update("/".join(below[:depth]) for depth in range(1, len(below) + 1))
    splits = _splits_of_folders(inner)
    if len(set(splits.values())) > 1:
        example = next(name for name in names if len(parts := name.split("/")) > 2 and parts[1] in splits)
        chosen = ",".join(f"{split}=*/{display_name(folder)}" for folder, split in splits.items())
        raise UserError(
            f"{location} has splits below other folders, such as {display_name(example)}: name them with "
            f"--splits {chosen}, where * is the name of any folder, or take all images for training with --split none"
        )
    several = sorted(top for top, paths in leaves.items() if len(paths) > 1)[:_MOST_COMPARED]
    for first, second in combinations(several, 2):
        if within[first] <= within[second] or within[second] <= within[first]:
            same = sorted(path.rpartition("/")[2] for path in leaves[first] & leaves[second])
            a, b = display_name(first), display_name(second)
            train, test = sorted((a, b), key=lambda name: "train" not in name.casefold())
            raise UserError(
                f"{location}: {a}/ and {b}/ hold folders of the same names ({', '.join(map(display_name, same[:3]))}), "
                f"as splits do: name the splits with --splits train={train},test={test}, or take them as classes "
                "with --split none"
            )


def _example(split_of: Mapping[str, str]) -> str:
    return "--splits " + ",".join(f"{split}={display_name(folder)}" for folder, split in sorted(split_of.items()))
