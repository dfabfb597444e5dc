"""Images in a zip file, read without unpacking it."""

import stat
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from latentscale.containers.file_kinds import pickle_refusal
from latentscale.containers.input_files import file_stamp
from latentscale.errors import UserError
from latentscale.shards.archive_safety import unsafe_name
from latentscale.sources.archives import (
    MAX_LABEL_FILE_BYTES,
    TOO_LARGE,
    Members,
    archive_listing,
    require_file,
)
from latentscale.sources.label_tables import LabelFile
from latentscale.sources.listing import (
    MAX_FILE_BYTES,
    Item,
    Listing,
    Problem,
    UnreadableItem,
    is_image,
    is_label_file,
    may_hold_labels,
)
from latentscale.sources.source_options import SourceOptions
from latentscale.sources.splits_and_labels import SidecarFiles

_ENCRYPTED = 0x1


@dataclass(frozen=True)
class ZipReader:
    """Reads members of a zip file; each process opens it once."""

    path: Path
    stamp: tuple[int, int]

    def read(self, item: Item) -> bytes:
        with _open_zip(self.path, self.stamp) as archive:
            return _content(archive, archive.infolist()[item.place], MAX_FILE_BYTES)


class _KeptZip(zipfile.ZipFile):
    """A zip file that leaving a ``with`` block does not close."""

    def __exit__(self, *_: object) -> None:
        pass


@lru_cache(maxsize=2)
def _open_zip(path: Path, stamp: tuple[int, int]) -> zipfile.ZipFile:
    """The archive of a file that had this stamp; a file that replaces it is another."""
    return _KeptZip(path)


def list_zip(path: Path | None, options: SourceOptions) -> Listing:
    """List the images of a zip file; its folders mean the same as those of a tree.

    Raises:
        UserError: the archive cannot be read or holds no images.
    """
    archive_path = require_file(path, "zip")
    if refusal := pickle_refusal(archive_path):
        raise UserError(f"{archive_path} is {refusal}")
    try:
        stamp = file_stamp(archive_path)
        with zipfile.ZipFile(archive_path) as archive:
            members = _members(archive, stamp)
            named = {_name(info): info for info in archive.infolist()}

            def read_label_file(name: str) -> LabelFile | None:
                info = named.get(name)
                if info is None or info.file_size > MAX_LABEL_FILE_BYTES:
                    return None
                location = f"{archive_path} member {name}"
                try:
                    return LabelFile(location, _content(archive, info, MAX_LABEL_FILE_BYTES))
                except UnreadableItem as error:
                    raise UserError(f"{location} {error}: fetch the archive again") from error

            label_files = SidecarFiles([name for name in named if is_label_file(name)], read_label_file)
            return archive_listing(archive_path, stamp, members, label_files, ZipReader(archive_path, stamp), options)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{archive_path} cannot be read as a zip file ({error}): fetch it again") from error


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int) -> bytes:
    """Read a member.

    Raises:
        UnreadableItem: the member is damaged or too large.
        OSError, MemoryError: the machine failed, not the archive.
    """
    try:
        with archive.open(info) as member:
            content = member.read(max_bytes + 1)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # each compression method raises its own errors for damaged bytes
        raise UnreadableItem(f"is damaged in the archive ({error})") from error
    if len(content) > max_bytes:
        raise UnreadableItem(TOO_LARGE)
    return content


def _members(archive: zipfile.ZipFile, stamp: tuple[int, int]) -> Members:
    members = Members()
    for number, info in enumerate(archive.infolist()):
        name = _name(info)
        if reason := unsafe_name(info.orig_filename) or _refusal(info):
            members.problems.append(Problem(name, reason))
        elif is_image(name):
            members.items.append(Item(name, number, (info.file_size, info.CRC, *stamp)))
        elif not name.endswith("/") and not is_label_file(name):
            members.others += 1
            members.tables += [name] * may_hold_labels(name)
    return members


def _name(info: zipfile.ZipInfo) -> str:
    """A member's name with ``/`` between folders: programs on Windows write ``\\``, which the format does not allow."""
    return info.filename.replace("\\", "/").removeprefix("./")


def _refusal(info: zipfile.ZipInfo) -> str:
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a symbolic link"
    if not is_image(_name(info)):
        return ""
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    return TOO_LARGE if info.file_size > MAX_FILE_BYTES else ""
