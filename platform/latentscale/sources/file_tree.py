"""The images in a folder at any depth, in an order that does not depend on the machine."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from latentscale.containers.file_kinds import pickle_refusal
from latentscale.decoding.image_suffixes import UNREAD_SUFFIXES, suffix
from latentscale.errors import UserError
from latentscale.shell_command import shell_command
from latentscale.sources.listing import (
    MAX_FILE_BYTES,
    Item,
    Problem,
    UnreadableItem,
    display_name,
    is_image,
    is_label_file,
    may_hold_labels,
    other_notes,
)
from latentscale.wording import counted


@dataclass
class Tree:
    """The contents of a folder.

    Attributes:
        items: the images, by name; names are paths below the folder with ``/`` between.
        problems: images that are refused links, special files or unreadable.
        others: number of files that are not images.
        tables: the names of those of them that may hold labels.
        unread: number of photographs in formats that are not read, by suffix.
        label_files: names of the files that are named like label files.
    """

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    others: int = 0
    tables: list[str] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)
    label_files: list[str] = field(default_factory=list)

    def notes(self, read: int = 0, labels: bool = True) -> list[str]:
        """Lines about the ignored files, if there are any.

        Args:
            read: how many of the other files were not ignored.
            labels: whether to name files that may hold labels.
        """
        return [
            *other_notes(self.others - read, "file", self.tables if labels else []),
            *unread_notes(self.unread),
        ]


def unread_notes(unread: Mapping[str, int]) -> list[str]:
    """Lines about photographs in formats that are not read, whose number is given by suffix."""
    return [
        f"ignored {counted(count, f'{kind} file')}, which Pillow does not read: convert them to JPEG or PNG first"
        for kind, count in sorted(unread.items())
    ]


@dataclass(frozen=True)
class FileReader:
    """Reads the files of a folder."""

    root: Path

    def read(self, item: Item) -> bytes:
        path = self.root / item.place
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise UnreadableItem(f"has {size} bytes, more than {MAX_FILE_BYTES}, the limit for one image")
            return stream.read()


def require_folder(path: Path | None, source: str, holds: str = "the images") -> Path:
    """Check that PATH is a folder.

    Args:
        path: the path, if one was given.
        source: name of the source, for messages.
        holds: what the folder must hold, for messages.

    Raises:
        UserError: the path is missing or is not a folder.
    """
    if path is None:
        command = shell_command("shards", "build", source)
        raise UserError(f"PATH is missing: {source} is read from a folder, {command} PATH")
    if not path.is_dir():
        if path.is_file() and (refusal := pickle_refusal(path)):
            raise UserError(f"{path} is {refusal}")
        raise UserError(f"{path} is not a folder: name the one that holds {holds}")
    return path


def walk(root: Path, follow_symlinks: bool = False) -> Tree:
    """Find all images in a folder and its subfolders.

    A link to a file inside the folder counts as that file. With ``follow_symlinks``, links to folders and out of the
    folder are followed too; without it they are problems. A broken link is always a problem.

    Raises:
        UserError: a folder cannot be listed.
    """
    tree = Tree()
    real_root = os.path.realpath(root)
    for entry, name in _entries(root, "", follow_symlinks, (real_root,), tree.problems):
        if is_label_file(name):
            tree.label_files.append(name)
        if not is_image(name):
            if suffix(name) in UNREAD_SUFFIXES:
                tree.unread[suffix(name)] += 1
            elif not is_label_file(name):
                tree.others += not os.path.basename(name).startswith(".")  # noqa: PTH119
                tree.tables += [name] * may_hold_labels(name)
            continue
        if entry.is_symlink() and (reason := _outside_root(entry, real_root, follow_symlinks)):
            tree.problems.append(Problem(name, reason))
            continue
        try:
            status = entry.stat()
        except OSError as error:
            tree.problems.append(Problem(name, f"cannot be read ({error.strerror})"))
            continue
        if not stat.S_ISREG(status.st_mode):
            tree.problems.append(Problem(name, "is a device, a pipe or a socket, not a regular file"))
            continue
        tree.items.append(Item(name, name, (status.st_size, status.st_mtime_ns)))
    tree.items.sort(key=lambda item: item.name)
    tree.problems.sort()
    return tree


def _entries(
    folder: Path | str, prefix: str, follow: bool, above: tuple[str, ...], problems: list[Problem]
) -> Iterator[tuple["os.DirEntry[str]", str]]:
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"{display_name(str(folder))} cannot be listed ({error.strerror}): fix its permissions"
        ) from error
    for entry in entries:
        name = prefix + entry.name
        try:
            is_folder = entry.is_dir()
        except OSError as error:  # such as a link to itself
            problems.append(Problem(name, f"cannot be read ({error.strerror})"))
            continue
        if not is_folder:
            yield entry, name
        elif entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        elif not entry.is_symlink():
            yield from _entries(entry.path, f"{name}/", follow, (*above, os.path.realpath(entry.path)), problems)
        elif not follow:
            problems.append(Problem(name, "is a symbolic link to a folder (--follow-symlinks follows it)"))
        elif (target := os.path.realpath(entry.path)) in above:
            problems.append(Problem(name, "is a symbolic link to a folder that contains it"))
        else:
            yield from _entries(entry.path, f"{name}/", follow, (*above, target), problems)


def _outside_root(entry: "os.DirEntry[str]", real_root: str, follow: bool) -> str:
    target = os.path.realpath(entry.path)
    if not os.path.exists(target):  # noqa: PTH110
        return "is a broken symbolic link"
    if not follow and os.path.commonpath([real_root, target]) != real_root:
        return "is a symbolic link that leads out of the folder (--follow-symlinks follows it)"
    return ""
