"""Which folders are splits: by the names that datasets give them, or by ``--splits``."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from latentscale.errors import UserError
from latentscale.sources.listing import display_name
from latentscale.sources.source_options import SPLITS, SPLITS_EXAMPLE
from latentscale.wording import counted

_SPLIT_OF_WORD = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# words beside the split's that say nothing more, as in training_set and test_images
_PLAIN_WORDS = frozenset(
    (
        *("set", "data", "dataset", "split", "folder", "sample", "samples"),
        *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures"),
    )
)
_SHOWN = 3
_MOST_SPLITS = 5
"""Where there are more folders, one with the word of a split in its name is taken as a class, such as freight_train."""
_MOST_COMPARED = 300


@dataclass(frozen=True)
class _Form:
    """A folder's name that has the word of a split in it, and the other words, with None in place of that word."""

    split: str
    others: tuple[str | None, ...]

    def plain(self) -> bool:
        return all(word is None or word in _PLAIN_WORDS for word in self.others)


@dataclass
class AssignedSplits:
    """The images of each split.

    Attributes:
        splits: indices into the names, by split, in the order train, val, test.
        below: each name without the folder of its split; names outside the splits that the user named are empty.
        folders: for each split, its folders; empty if no folder names a split.
        outside: indices of the names outside the splits that the user named.
        doubts: two folders that hold the same folders, of which it is unknown whether they are splits.
    """

    splits: dict[str, list[int]]
    below: list[str]
    folders: dict[str, list[str]] = field(default_factory=dict)
    outside: list[int] = field(default_factory=list)
    doubts: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """A line where a folder's name is not its split's, and one about images that no split holds."""
        lines = []
        if any(folders != [split] for split, folders in self.folders.items()):
            said = (f"{split} is {' and '.join(_shown(folders))}" for split, folders in self.folders.items())
            lines.append(f"splits: {', '.join(said)}")
        if self.outside:
            lines.append(f"left out {counted(len(self.outside), 'image')} outside the folders that --splits names")
        return lines


def known_splits(folders: Iterable[str]) -> dict[str, str]:
    """The folders that are certainly splits, with the split.

    Certain are names such as Train, TEST, Testing, training_set and val_images, and those that differ only in the word
    of the split, such as seg_train and seg_test or train2017 and val2017.
    """
    forms = {folder: form for folder in folders if (form := _form(folder)) is not None}
    together = defaultdict(set)
    for form in forms.values():
        together[form.others].add(form.split)
    return {folder: form.split for folder, form in forms.items() if form.plain() or len(together[form.others]) > 1}


def common_parts(names: Sequence[str]) -> list[str]:
    """The folders that contain all names, outermost first."""
    folders = [name.split("/")[:-1] for name in names]
    if not folders:
        return []
    first, last = min(folders), max(folders)
    same = next((depth for depth, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    return first[: min(len(first), len(last)) if same is None else same]


def common_folder(names: Sequence[str]) -> str:
    """The folders that contain all names, ending in ``/``; archives often have one at the top.

    It ends above a folder that is a split.
    """
    parts = common_parts(names)
    depth = len("".join(f"{part}/" for part in parts))
    tops = {name[depth:].partition("/")[0] for name in names if "/" in name[depth:]}
    if not tops or set(known_splits(tops)) != tops:
        parts = parts[: next((number for number, part in enumerate(parts) if known_splits([part])), len(parts))]
    return "".join(f"{part}/" for part in parts)


def assign_splits(names: Sequence[str], wanted: str, location: str) -> AssignedSplits:
    """Assign names to splits by their top folder, if the top folders are named like splits.

    Args:
        names: names with ``/`` between folders.
        wanted: ``published``: the splits that the folders name; ``all`` or ``none``: one split, ``train``.
        location: the folder or archive, for messages.

    Raises:
        UserError: only some of the names are in folders that are named like splits, or the folders of splits are below
            those of classes, or it is unclear whether the names of folders are those of splits.
    """
    tops = [name.partition("/")[0] if "/" in name else "" for name in names]
    known = known_splits({top for top in tops if top})
    if not all(top in known for top in tops):
        if wanted == "none":
            return AssignedSplits({"train": list(range(len(names)))}, list(names))
        if known:
            raise _strays(names, tops, known, location)
        _refuse_likely_splits(names, tops, location)
        return AssignedSplits({"train": list(range(len(names)))}, list(names), doubts=_alike(names))
    pairs = [(known[top], top) for top in tops]
    below = [name.partition("/")[2] for name in names]
    return _assigned(pairs, below, wanted, rename_val=True)


def assign_named_splits(
    names: Sequence[str], common: str, wanted: str, pairs: Sequence[tuple[str, str]], location: str
) -> AssignedSplits:
    """Assign names to the splits whose folders the user named.

    Args:
        names: names with ``/`` between folders.
        common: the folder that contains all, ending in ``/``; the user's folders may be below it.
        wanted: as in :func:`assign_splits`.
        pairs: splits and their folders; ``*`` stands for any name of a folder, which stays as a class.
        location: the folder or archive, for messages.

    Raises:
        UserError: a folder holds no image, or an image is in the folders of two splits.
    """
    if wanted == "none":
        raise UserError("--splits and --split none exclude each other: leave one out")
    found: dict[int, tuple[tuple[str, str], str]] = {}
    for split, folder in pairs:
        pattern = re.compile("".join(map(_pattern, folder.split("/"))) + "(.+)", re.DOTALL)
        hits = [(index, match) for index, name in enumerate(names) if (match := pattern.fullmatch(name))]
        if not hits:
            lower = (name.removeprefix(common) for name in names)
            hits = [(index, match) for index, name in enumerate(lower) if (match := pattern.fullmatch(name))]
        if not hits:
            tops = sorted({name.removeprefix(common).partition("/")[0] for name in names if "/" in name})
            there = f"its folders are {', '.join(_shown(tops))}" if tops else "it has no folders"
            raise UserError(
                f"--splits {split}={display_name(folder)}: {location} has no images in {display_name(folder)}/: {there}"
            )
        for index, match in hits:
            other = found.setdefault(index, ((split, folder), "/".join(match.groups())))[0]
            if other != (split, folder):
                raise UserError(
                    f"{display_name(names[index])} is in both {other[0]}={display_name(other[1])} and "
                    f"{split}={display_name(folder)} of --splits: name folders that hold different images"
                )
    kept = sorted(found)
    assigned = _assigned([found[i][0] for i in kept], [found[i][1] for i in kept], wanted, rename_val=False)
    below = [""] * len(names)
    for index, name in zip(kept, assigned.below, strict=True):
        below[index] = name
    splits = {split: [kept[number] for number in numbers] for split, numbers in assigned.splits.items()}
    outside = sorted(set(range(len(names))) - found.keys())
    return AssignedSplits(splits, below, assigned.folders, outside)


def _form(folder: str) -> _Form | None:
    words = re.findall(r"[a-z]+|[0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", folder).lower())
    parts: list[str | None] = []
    split = ""
    for word in words:
        stem, end = (word[:-3], ["set"]) if word.endswith("set") and word[:-3] in _SPLIT_OF_WORD else (word, [])
        if stem not in _SPLIT_OF_WORD:
            parts.append(word)
        elif split:
            return None
        else:
            split, parts = _SPLIT_OF_WORD[stem], [*parts, None, *end]
    # characters of other scripts are a part of the name
    others = (*parts, *re.findall(r"[^\W\d_a-zA-Z]+", folder))
    return _Form(split, others) if split else None


def _assigned(pairs: Sequence[tuple[str, str]], below: list[str], wanted: str, rename_val: bool) -> AssignedSplits:
    splits: dict[str, list[int]] = {}
    folders: dict[str, list[str]] = {}
    members: dict[tuple[str, str], list[int]] = {}
    for index, pair in enumerate(pairs):
        members.setdefault(pair, []).append(index)
    for (split, folder), indices in members.items():
        splits.setdefault(split if wanted == "published" else "train", []).extend(indices)
        folders.setdefault(split if wanted == "published" else "train", []).append(folder)
        # archives often repeat a folder, as in seg_train/seg_train/
        tops = {below[index].partition("/")[0] if "/" in below[index] else "" for index in indices}
        if len(tops) == 1 and _repeats(tops.pop(), split, folder):
            for index in indices:
                below[index] = below[index].partition("/")[2]
    if rename_val and "test" not in splits and "val" in splits:
        splits["test"], folders["test"] = splits.pop("val"), folders.pop("val")
    order = sorted(splits, key=SPLITS.index)
    return AssignedSplits(
        {split: sorted(splits[split]) for split in order}, below, {split: folders[split] for split in order}
    )


def _repeats(top: str, split: str, folder: str) -> bool:
    form = _form(top)
    return form is not None and form.split == split and (form.plain() or top == folder.rpartition("/")[2])


def _pattern(part: str) -> str:
    if part == "*":
        return "([^/]+)/"
    return "[^/]*".join(map(re.escape, part.split("*"))) + "/"


def _strays(names: Sequence[str], tops: Sequence[str], known: dict[str, str], location: str) -> UserError:
    folders = ", ".join(sorted(f"{top}/" for top in known))
    strays = [name for name, top in zip(names, tops, strict=True) if top not in known]
    more = f" and {len(strays) - 1} more images do" if len(strays) > 1 else " does"
    return UserError(
        f"{location} has splits in {display_name(folders)}, but {display_name(strays[0])}{more} not lie in one of "
        "them: move the images outside into a split or away, name the folders of the splits, such as "
        f"{SPLITS_EXAMPLE}, or treat all folders as labels of one split with --split none"
    )


def _refuse_likely_splits(names: Sequence[str], tops: Sequence[str], location: str) -> None:
    forms = {top: _form(top) for top in sorted(set(tops))}
    unclear = {top: form.split for top, form in forms.items() if form is not None}
    if unclear and (len(forms) <= _MOST_SPLITS or len(forms) == len(unclear) > 1):
        others = [top for top in forms if top and top not in unclear]
        if len(others) == 1 and "train" not in unclear.values():
            unclear = {others[0]: "train", **unclear}
        raise UserError(
            f"{location} has the folders {', '.join(_shown(filter(None, forms)))}, which may be splits or classes: "
            f"name the splits, such as --splits {_option(unclear.items())}, or treat all "
            "folders as labels of one split with --split none"
        )
    below = [(name, parts[1]) for name in names if len(parts := name.split("/")) > 2]
    known = known_splits({folder for _, folder in below})
    if len(set(known.values())) > 1:
        example = next(name for name, folder in below if folder in known)
        raise UserError(
            f"{location} has splits below other folders, such as {display_name(example)}: name them with --splits "
            f"{_option((f'*/{folder}', split) for folder, split in sorted(known.items()))}, where * is the name of any "
            "folder, or put all images into train with --split none"
        )


def _option(splits: Iterable[tuple[str, str]]) -> str:
    every = [f"{split}={folder}" for folder, split in splits]
    return display_name(",".join(every[:_SHOWN] + ["..."] * (len(every) > _SHOWN)))


def _alike(names: Sequence[str]) -> tuple[str, ...]:
    """Two top folders of which one holds all the folders that the other holds, and these are at least two."""
    leaves: dict[str, set[str]] = defaultdict(set)
    inner: dict[str, set[str]] = defaultdict(set)
    for name in names:
        top, *below = name.split("/")[:-1] or [""]
        if below and (path := "/".join(below)) not in leaves[top]:
            leaves[top].add(path)
            inner[top].update("/".join(below[:depth]) for depth in range(1, len(below) + 1))
    several = sorted(folder for folder, held in leaves.items() if len(held) > 1)
    pairs = combinations(several[:_MOST_COMPARED], 2)
    return next(((a, b) for a, b in pairs if inner[a] <= inner[b] or inner[b] <= inner[a]), ())


def _shown(folders: Iterable[str]) -> list[str]:
    every = [f"{display_name(folder)}/" for folder in folders]
    return every if len(every) <= _SHOWN + 1 else [*every[:_SHOWN], f"{len(every) - _SHOWN} more"]
