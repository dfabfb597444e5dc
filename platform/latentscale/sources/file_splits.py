"""Splits of datasets whose files each belong to one split, such as ``data/train-00000-of-00004.parquet``."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from latentscale.errors import UserError
from latentscale.sources.listing import display_name
from latentscale.sources.source_options import SourceOptions
from latentscale.sources.split_folders import SPLITS, parse_splits, split_of_folder
from latentscale.wording import counted


@dataclass
class FileSplits:
    """The split of each file.

    Attributes:
        of_file: ``train``, ``val`` or ``test`` for each file; empty for files that are left out.
        notes: lines to print for the user.
    """

    of_file: list[str]
    notes: list[str] = field(default_factory=list)

    def merged(self, split: str) -> "FileSplits":
        """With every file in train where ``split`` is not ``published``, and with a test split if there is any other.

        Args:
            split: the option of that name.
        """
        if split != "published":
            return FileSplits(["train" if name else "" for name in self.of_file], self.notes)
        if "val" in self.of_file and "test" not in self.of_file:
            of_file = ["test" if name == "val" else name for name in self.of_file]
            return FileSplits(of_file, [*self.notes, "val is the test split, for there is no other"])
        return self


def split_files(names: Sequence[str], options: SourceOptions, location: str) -> FileSplits | None:
    """The split of each file as ``--splits`` or the files' names say; None if neither says anything.

    Args:
        names: of the files, with the folders below what was given.
        options: ``split`` and ``splits`` are used.
        location: what was given, for messages.

    Raises:
        UserError: only some of the files are in a split, or a name says two.
    """
    if chosen := parse_splits(options.splits):
        if options.split == "none":
            raise UserError("--splits and --split none contradict each other: leave one out")
        return _chosen_splits(names, chosen, location)
    found = [_split_of_name(name, options) for name in names]
    if not any(found):
        return None
    if options.split != "none" and not all(found):
        stray, named = names[found.index("")], next(number for number, split in enumerate(found) if split)
        raise UserError(
            f"{location}: {display_name(stray)} names no split, but {display_name(names[named])} does, {found[named]}: "
            f"say which files are which by the beginnings of their names, such as --splits {found[named]}="
            f"{_beginning(names[named])}, or take all for training with --split none"
        )
    return FileSplits([split or "train" for split in found])


def _chosen_splits(names: Sequence[str], chosen: Mapping[str, str], location: str) -> FileSplits | None:
    matches = [[prefix for prefix in chosen if _is_of(name, prefix)] for name in names]
    if not any(matches):
        return None
    used = {prefix for found in matches for prefix in found}
    for prefix in chosen:
        if prefix not in used:
            there = ", ".join(map(display_name, names[:10]))
            raise UserError(f"--splits names {display_name(prefix)}, but {location} holds {there}")
    # the longest says most: train-extra besides train
    of_file = [chosen[max(found, key=len)] if found else "" for found in matches]
    left_out = [name for name, split in zip(names, of_file, strict=True) if not split]
    if not left_out:
        return FileSplits(of_file)
    return FileSplits(
        of_file,
        [f"left out {counted(len(left_out), 'file')} that --splits does not name, such as {display_name(left_out[0])}"],
    )


def _is_of(name: str, prefix: str) -> bool:
    """Whether a file or a folder that it is in begins with a prefix, or the whole name matches it as a pattern."""
    begins = any(
        part.startswith(prefix) and not part[len(prefix) : len(prefix) + 1].isalnum() for part in name.split("/")
    )
    return begins or fnmatchcase(name, prefix)


def _split_of_name(name: str, options: SourceOptions) -> str:
    """The split that a file's name says, or else the nearest folder's; empty if none does."""
    for part in reversed(name.split("/")):
        # a few names are two words: the whole part tells test_set from a set of tests
        words = [part.split(".")[0], *re.split(r"[^A-Za-z]+", part)]
        splits = {split for word in words if (split := split_of_folder(word))}
        if len(splits) > 1 and options.split != "none":
            raise UserError(
                f"{display_name(name)} names the splits {' and '.join(split for split in SPLITS if split in splits)}: "
                f"say which it is, such as --splits train={_beginning(name)}, or use --split none"
            )
        if splits:
            return min(splits)
    return ""


def _beginning(name: str) -> str:
    base = name.rpartition("/")[2]
    return display_name(re.sub(r"[\W_]*\d*(-of-\d+)?(\.\w+)*$", "", base) or base)
