"""Images in a folder, however deep, in one order everywhere."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from latentscale.errors import UserError
from latentscale.sources.listing import (
    MAX_FILE_BYTES,
    Item,
    Problem,
    UnreadableItem,
    display_name,
    is_image,
    is_label_file,
)
from latentscale.wording import counted


@dataclass
class Tree:
    """What stands in a folder.

    Attributes:
        items: the images, by name; names are paths below the folder with ``/`` between.
        problems: links that lead astray and what is no file.
        others: how many files are no images.
        label_files: the names of those that are called like files of labels.
    """

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    others: int = 0
    label_files: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """A line on what was left alone."""
        return [f"{counted(self.others, 'file')} without an image's name left alone"] if self.others else []


@dataclass(frozen=True)
class FileReader:
    """Reads the files of a folder."""

    root: Path

    def read(self, item: Item) -> bytes:
        path = self.root / item.place
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise UnreadableItem(f"has {size} bytes, more than the {MAX_FILE_BYTES} that are read of one image")
            return stream.read()


def require_folder(path: Path | None, source: str, holds: str = "the images") -> Path:
    """The folder a source is read from.

    Args:
        path: as given.
        source: that needs it.
        holds: what is looked for in it.

    Raises:
        UserError: there is none.
    """
    if path is None:
        raise UserError(f"PATH is missing: {source} is read from a folder, latentscale shards build {source} PATH")
    if not path.is_dir():
        raise UserError(f"{path} is not a folder: name the one that holds {holds}")
    return path


def walk(root: Path, follow_symlinks: bool = False) -> Tree:
    """Find all images below a folder.

    A link to a file within the folder is taken for the file. One that leads outside, to a folder or nowhere is a
    problem, unless ``follow_symlinks`` says that links are meant.

    Raises:
        UserError: a folder cannot be listed.
    """
    tree = Tree()
    real_root = os.path.realpath(root)
    for entry, name in _entries(root, "", follow_symlinks, (real_root,), tree.problems):
        if is_label_file(name):
            tree.label_files.append(name)
        if not is_image(name):
            tree.others += not os.path.basename(name).startswith(".")  # noqa: PTH119
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
            tree.problems.append(Problem(name, "is no file but a device, a pipe or a socket"))
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
            f"{display_name(str(folder))} cannot be listed ({error.strerror}): mend its permissions"
        ) from error
    for entry in entries:
        name = prefix + entry.name
        try:
            is_folder = entry.is_dir()
        except OSError as error:  # as of a link that leads back to itself
            problems.append(Problem(name, f"cannot be read ({error.strerror})"))
            continue
        if not is_folder:
            yield entry, name
        elif entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        elif not entry.is_symlink():
            yield from _entries(entry.path, f"{name}/", follow, (*above, os.path.realpath(entry.path)), problems)
        elif not follow:
            problems.append(Problem(name, "is a symbolic link to a folder (--follow-symlinks takes it)"))
        elif (target := os.path.realpath(entry.path)) in above:
            problems.append(Problem(name, "is a symbolic link to a folder that it stands in"))
        else:
            yield from _entries(entry.path, f"{name}/", follow, (*above, target), problems)


def _outside_root(entry: "os.DirEntry[str]", real_root: str, follow: bool) -> str:
    target = os.path.realpath(entry.path)
    if not os.path.exists(target):  # noqa: PTH110
        return "is a symbolic link to nothing"
    if not follow and os.path.commonpath([real_root, target]) != real_root:
        return "is a symbolic link that leads out of the folder (--follow-symlinks takes it)"
    return ""
