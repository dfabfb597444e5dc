"""Images in an uncompressed tar file, read at their byte offsets."""

import os
import tarfile
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
from latentscale.sources.listing import (
    MAX_FILE_BYTES,
    Item,
    Listing,
    Problem,
    UnreadableItem,
    display_name,
    is_image,
    is_label_file,
)
from latentscale.sources.source_options import SourceOptions
from latentscale.sources.splits_and_labels import SidecarFiles

_BLOCK_BYTES = 512
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"\x28\xb5": "unzstd"}


@dataclass(frozen=True)
class TarReader:
    """Reads members of a tar file at their byte offsets."""

    path: Path

    def read(self, item: Item) -> bytes:
        offset, size = item.place
        with self.path.open("rb") as stream:
            content = os.pread(stream.fileno(), size, offset)
        if len(content) != size:
            raise UnreadableItem(f"is cut off after {len(content)} of {size} bytes")
        return content


def list_tar(path: Path | None, options: SourceOptions) -> Listing:
    """List the images of a tar file; its folders mean the same as those of a tree.

    Raises:
        UserError: the archive cannot be read, is compressed or holds no images.
    """
    archive_path = require_file(path, "tar")
    places: dict[str, tuple[int, int]] = {}
    try:
        with archive_path.open("rb") as stream:
            if unpack := _COMPRESSED.get(stream.read(2)):
                raise UserError(
                    f"{archive_path} is compressed, so that its images cannot be read at random: "
                    f"decompress it first, such as with {unpack}"
                )
            stream.seek(0)
            members = _members(stream, archive_path, places)
    except (OSError, *DAMAGED_HEADER) as error:
        raise UserError(
            f"{archive_path} cannot be read as a tar file ({short_error(error)}): fetch it again"
        ) from error
    reader = TarReader(archive_path)

    def read_label_file(name: str) -> LabelFile | None:
        if name not in places or places[name][1] > MAX_LABEL_FILE_BYTES:
            return None
        return LabelFile(f"{archive_path} member {name}", reader.read(Item(name, places[name], ())))

    try:
        label_files = SidecarFiles([name for name in places if is_label_file(name)], read_label_file)
        return archive_listing(archive_path, members, label_files, reader, options)
    except (OSError, UnreadableItem) as error:
        raise UserError(f"{archive_path} has a label file that {error}: fetch it again") from error


def _members(stream: BinaryIO, path: Path, others: dict[str, tuple[int, int]]) -> Members:
    members, stamp = Members(), file_stamp(path)
    size, name = stamp[0], ""
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        try:
            for member in archive:
                name, place = member.name.removeprefix("./"), (member.offset_data, member.size)
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
                    members.others += 1
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
    return members
