"""Images in an uncompressed tar file, read at their byte offsets."""

import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from latentscale.errors import UserError
from latentscale.shards.archive_safety import unsafe_kind, unsafe_name
from latentscale.shards.tar_samples import DAMAGED_HEADER, short_error
from latentscale.sources.archives import (
    MAX_LABEL_FILE_BYTES,
    TOO_LARGE,
    Members,
    archive_listing,
    file_stamp,
    require_file,
)
from latentscale.sources.label_tables import LabelFile
from latentscale.sources.labels_beside import labels_beside
from latentscale.sources.listing import (
    MAX_FILE_BYTES,
    Item,
    Listing,
    Problem,
    UnreadableItem,
    display_name,
    is_image,
    is_label_file,
    may_hold_labels,
)
from latentscale.sources.source_options import SourceOptions
from latentscale.sources.split_folders import split_of_folder
from latentscale.sources.splits_and_labels import SidecarFiles

_BLOCK_BYTES = 512
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"\x28\xb5": "unzstd"}


@dataclass(frozen=True)
class TarReader:
    """Reads members of tar files at their byte offsets; a place is (file, offset, size)."""

    paths: tuple[Path, ...]

    def read(self, item: Item) -> bytes:
        file, offset, size = item.place
        with self.paths[file].open("rb") as stream:
            content = os.pread(stream.fileno(), size, offset)
        if len(content) != size:
            raise UnreadableItem(f"is cut off after {len(content)} of {size} bytes")
        return content


def list_tar(path: Path | None, options: SourceOptions) -> Listing:
    """List the images of a tar file, of a folder of tar files, or of those that a pattern with braces names.

    Their folders mean the same as those of a tree. Of several files, the names may say train, val or test: the splits.
    Members beside an image, KEY.cls or the ``label`` of KEY.json, are labels, as WebDataset has them.

    Raises:
        UserError: a file cannot be read, is compressed or holds no images, or its labels are incomplete.
    """
    paths = _tar_paths(path)
    prefixes = _split_prefixes(paths, options)
    members, others = Members(), dict[str, tuple[int, int, int]]()
    for number, (archive, prefix) in enumerate(zip(paths, prefixes, strict=True)):
        try:
            with archive.open("rb") as stream:
                if unpack := _COMPRESSED.get(stream.read(2)):
                    raise UserError(
                        f"{archive} is compressed, so that its images cannot be read at random: "
                        f"decompress it first, such as with {unpack}"
                    )
                stream.seek(0)
                _add_members(stream, archive, number, prefix, members, others)
        except (OSError, *DAMAGED_HEADER) as error:
            raise UserError(f"{archive} cannot be read as a tar file ({short_error(error)}): fetch it again") from error
    reader = TarReader(paths)
    whole = paths[0] if len(paths) == 1 else Path(str(path))

    def content(name: str) -> bytes:
        return reader.read(Item(name, others[name], ()))

    def read_label_file(name: str) -> LabelFile | None:
        if name not in others or others[name][2] > MAX_LABEL_FILE_BYTES:
            return None
        return LabelFile(f"{whole} member {name}", content(name))

    try:
        beside = None
        if options.labels == "auto":
            beside = labels_beside([item.name for item in members.items], others.keys(), content, str(whole))
        read = sum(is_label_file(name) for name in others) + (beside.members if beside else 0)
        members.others = len(others) - read
        members.tables = [name for name in others if may_hold_labels(name)] if beside is None else []
        label_files = SidecarFiles([name for name in others if is_label_file(name)], read_label_file, beside)
        return archive_listing(whole, members, label_files, reader, options)
    except (OSError, UnreadableItem) as error:
        raise UserError(f"{whole} has a label file that {error}: fetch it again") from error


def _tar_paths(path: Path | None) -> tuple[Path, ...]:
    """The tar files that a path names.

    Raises:
        UserError: there are none.
    """
    if path is not None and path.is_dir():
        found = sorted(file for file in path.rglob("*.tar") if file.is_file())
        if not found:
            raise UserError(f"{path} holds no .tar file: name a tar file, or a folder of tar files")
        return tuple(found)
    if path is not None and "{" in str(path) and not path.exists():
        from webdataset.shardlists import expand_urls

        return tuple(require_file(Path(name), "tar") for name in expand_urls(str(path)))
    return (require_file(path, "tar"),)


def _split_prefixes(paths: Sequence[Path], options: SourceOptions) -> list[str]:
    """For each of several files the folder of its split, which its name or its folder says; empty for one file.

    Raises:
        UserError: only some of the names say a split.
    """
    if len(paths) == 1:
        return [""]
    found = []
    for path in paths:
        words = (*re.split(r"[\W_]+", path.stem), path.parent.name)
        said = {split for word in words if (split := split_of_folder(word))}
        found.append(said.pop() if len(said) == 1 else "")
    if not any(found) or options.split == "none":
        return [""] * len(paths)
    if not all(found):
        without, named = paths[found.index("")], next(path for path, split in zip(paths, found, strict=True) if split)
        raise UserError(
            f"{without} names no split, but {named} does: move it away, or take all images for training with --split"
            " none"
        )
    return [f"{split}/" for split in found]


def _add_members(
    stream: BinaryIO, path: Path, number: int, prefix: str, members: Members, others: dict[str, tuple[int, int, int]]
) -> None:
    stamp = file_stamp(path)
    size, name = stamp[0], ""
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        try:
            for member in archive:
                name = prefix + member.name.removeprefix("./")
                place = (number, member.offset_data, member.size)
                missing = member.offset_data + member.size - size
                if member.isreg() and missing > 0:
                    # the members after this one are unknown, so --on-error skip cannot continue
                    raise UserError(
                        f"{path} member {display_name(name)} is cut off {missing} bytes before its end: fetch it again"
                    )
                if reason := unsafe_name(member.name) or unsafe_kind(member):
                    members.problems.append(Problem(name, reason))
                elif member.isreg() and is_image(name):
                    if member.size > MAX_FILE_BYTES:
                        members.problems.append(Problem(name, TOO_LARGE))
                    else:
                        members.items.append(Item(name, place, (member.size, int(member.mtime), *stamp)))
                elif member.isreg():
                    others[name] = place
            stream.seek(archive.offset)
            # tarfile treats a damaged header as the archive's end
            end = stream.read(_BLOCK_BYTES)
            whole = len(end) == _BLOCK_BYTES and not end.strip(b"\0")
        except tarfile.ReadError:
            whole = False
        except DAMAGED_HEADER as error:
            after = f", after member {display_name(name)}" if name else ""
            raise UserError(
                f"{path} has a damaged header at byte {archive.offset}{after} ({short_error(error)}): fetch it again"
            ) from error
        if not whole:
            raise UserError(f"{path} is damaged or cut off at byte {archive.offset}: fetch it again")
