"""The files that PATH names: one, several, all of a folder, or those of a pattern such as ``{00..99}.tar``."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path

from latentscale.containers.file_kinds import COMPRESSED_TARS, compressed_remedy, files_that_are_not_read
from latentscale.decoding.image_suffixes import IMAGE_SUFFIXES, suffix
from latentscale.errors import UserError
from latentscale.shell_command import shell_command
from latentscale.wording import counted, escaped

_MAX_FILES = 1_000_000
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")
_BRACES = re.compile(r"\{([^{}]*)\}")
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class InputFile:
    """A file to read.

    Attributes:
        path: of the file.
        name: below the folder that was given, with ``/`` between.
        stamp: as `file_stamp` gave it before anything was read.
    """

    path: Path
    name: str
    stamp: tuple[int, int]


def file_stamp(path: Path) -> tuple[int, int]:
    """Size and modification time, by which a build detects that a file was replaced."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@dataclass
class InputFiles:
    """The files of a source.

    Attributes:
        name: a name for the dataset.
        location: what was given, for messages.
        files: in the order of their names.
        tree: the folder that was searched; None if files were named.
        notes: lines to print for the user.
    """

    name: str
    location: str
    files: list[InputFile]
    tree: Path | None = None
    notes: list[str] = field(default_factory=list)

    def stamps(self) -> dict[Path, tuple[int, int]]:
        """The stamp of every file."""
        return {file.path: file.stamp for file in self.files}


def input_files(paths: Sequence[Path], suffixes: Sequence[str], source: str, follow_symlinks: bool) -> InputFiles:
    """Find the files that the paths name.

    Args:
        paths: as they were given.
        suffixes: of the files that the source reads, such as ``.tar``.
        source: name of the source, for messages.
        follow_symlinks: whether links that lead out of a folder are followed.

    Raises:
        UserError: a path is missing, is given twice, or names no such files.
    """
    if not paths:
        raise UserError(
            f"PATH is missing: name {suffixes[0]} files, {shell_command('shards', 'build', source)} PATH, or a folder"
            " of them"
        )
    if len(paths) == 1 and paths[0].is_dir():
        return _of_folder(paths[0], suffixes, follow_symlinks)
    expanded = [file for path in paths for file in expand_braces(path)]
    for file in expanded:
        if not file.is_file():
            of = f" (of {escaped(str(paths[0]))})" if len(expanded) > 1 and len(paths) == 1 else ""
            raise UserError(f"{escaped(str(file))} is not a file{of}: name {suffixes[0]} files, or one folder of them")
    _refuse_pointers(expanded)
    common = Path(os.path.commonpath([file.absolute().parent for file in expanded]))
    files = sorted(
        (InputFile(file, file.absolute().relative_to(common).as_posix(), file_stamp(file)) for file in expanded),
        key=lambda file: natural_order(file.name),
    )
    for first, second in pairwise(files):
        if first.path.samefile(second.path):
            raise UserError(f"{escaped(str(second.path))} is given twice: name each file once")
    if len(files) == 1:
        return InputFiles(files[0].path.stem, str(files[0].path), files)
    # imagenet-train-000000.tar and its neighbours are imagenet-train
    beginning = re.sub(r"[\W_]*\d.*|[\W_]*\.\w+$", "", files[0].path.name)
    name = beginning if all(file.path.name.startswith(beginning) for file in files) else ""
    name = name or common.name
    return InputFiles(name, escaped(str(paths[0])) if len(paths) == 1 else f"{counted(len(files), 'file')}", files)


def expand_braces(path: Path) -> list[Path]:
    """The paths of a pattern with ``{000..146}`` or ``{a,b}``, as a shell expands it; a path that exists is itself.

    Raises:
        UserError: the pattern stands for more than a million paths.
    """
    if not is_pattern(path):
        return [path]
    found = list(islice(_expanded(str(path), path), _MAX_FILES + 1))
    if len(found) > _MAX_FILES:
        raise UserError(f"{escaped(str(path))} stands for more than {_MAX_FILES} files: name a folder instead")
    return [Path(text) for text in found]


def _expanded(text: str, path: Path) -> Iterator[str]:
    if not (match := _BRACES.search(text)):
        yield text
        return
    for choice in _choices(match[1], path):
        yield from _expanded(text[: match.start()] + choice + text[match.end() :], path)


def is_pattern(path: Path) -> bool:
    """Whether a path stands for several files."""
    return not path.exists() and bool(_BRACES.search(str(path)))


def suffixes_without_images(root: Path) -> set[str]:
    """The suffixes of the files in a folder, at any depth; none if there is an image among them."""
    found: set[str] = set()
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        for name in names:
            if suffix(name) in IMAGE_SUFFIXES:
                return set()
            found.add(Path(folder, name).suffix.lower())
    return found


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """A sort key by which ``batch_2`` comes before ``batch_10``."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), part) if number % 2 else (0, 0, part) for number, part in enumerate(parts)]


def _choices(inside: str, path: Path) -> list[str]:
    if not (match := _RANGE.fullmatch(inside)):
        if "," not in inside:
            raise UserError(
                f"{escaped(str(path))} does not exist, and {{{escaped(inside)}}} is no pattern such as "
                "{000..146} or {a,b}: name files that exist"
            )
        return inside.split(",")
    first, last = int(match[1]), int(match[2])
    if abs(last - first) >= _MAX_FILES:
        raise UserError(f"{escaped(str(path))} stands for more than {_MAX_FILES} files: name a folder instead")
    width = max(len(match[1]), len(match[2])) if match[1].startswith("0") or match[2].startswith("0") else 0
    step = 1 if last >= first else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]


def _of_folder(root: Path, suffixes: Sequence[str], follow_symlinks: bool) -> InputFiles:
    files: list[InputFile] = []
    images: list[str] = []
    others = 0
    compressed: list[Path] = []
    for path, name in _walk(root, "", follow_symlinks, (os.path.realpath(root),)):
        if name.lower().endswith(tuple(suffixes)):
            files.append(InputFile(path, name, file_stamp(path)))
        elif suffix(name) in IMAGE_SUFFIXES:
            images.append(name)
        else:
            others += 1
            compressed += [path] * (".tar" in suffixes and name.lower().endswith(COMPRESSED_TARS))
    if compressed:
        what = f"{counted(len(compressed), 'compressed tar')}, whose images cannot be read at random"
        way_out = ", or name the other files themselves" if files else ""
        raise UserError(f"{root} holds {what}: decompress first, such as {compressed_remedy(compressed[0])}{way_out}")
    if not files:
        other = files_that_are_not_read(root)
        raise UserError(
            f"{root} holds no {' or '.join(suffixes)} files"
            + (f", but {other}" if other else ": name the folder that holds them")
        )
    if images:
        raise UserError(
            f"{root} holds {suffixes[0]} files and also images, such as {escaped(images[0])}: name the files "
            "themselves, or move the images away"
        )
    _refuse_pointers([file.path for file in files])
    files.sort(key=lambda file: natural_order(file.name))
    notes = [f"ignored {counted(others, 'file')} not named {' or '.join(suffixes)}"] if others else []
    return InputFiles(root.resolve().name, str(root), files, root, notes)


def _walk(folder: Path, prefix: str, follow: bool, above: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{escaped(str(folder))} cannot be listed ({error.strerror}): fix its permissions") from error
    for path in entries:
        if path.name.startswith(".") or path.name == "__MACOSX":
            continue
        real = os.path.realpath(path)
        if not follow and os.path.commonpath([above[0], real]) != above[0]:
            raise UserError(
                f"{escaped(str(path))} is a symbolic link that leads out of the folder: follow it with "
                "--follow-symlinks, or name the files themselves"
            )
        if path.is_dir():
            if real not in above:
                yield from _walk(path, f"{prefix}{path.name}/", follow, (*above, real))
        elif path.is_file():
            yield path, prefix + path.name
        else:
            kind = "is a broken symbolic link" if path.is_symlink() else "is not a regular file"
            raise UserError(f"{escaped(str(path))} {kind}: remove it, or name the files themselves")


def _refuse_pointers(paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            with path.open("rb") as stream:
                start = stream.read(len(_LFS_POINTER))
        except OSError as error:
            raise UserError(f"{escaped(str(path))} cannot be read ({error.strerror}): fix its permissions") from error
        if start == _LFS_POINTER:
            raise UserError(
                f"{escaped(str(path))} is a Git LFS pointer, not the file itself: fetch it with git lfs pull"
            )
