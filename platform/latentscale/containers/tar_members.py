"""The files in an uncompressed tar and in the tars within it, found in one pass over the headers."""

import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from latentscale.containers.file_kinds import (
    COMPRESSED_TARS,
    START_BYTES,
    archive_kind,
    decompress_command,
    decompressor,
    pickle_refusal,
)
from latentscale.errors import UserError
from latentscale.shards.archive_safety import unsafe_kind, unsafe_name
from latentscale.shards.tar_samples import DAMAGED_HEADER, short_error
from latentscale.wording import escaped

_BLOCK_BYTES = 512

TakeContent = Callable[[str, bytes], None]


@dataclass(frozen=True, slots=True)
class TarFile:
    """A regular file: its name, the offset of its content in the outermost tar, its size, and its modification time."""

    name: str
    offset: int
    size: int
    time: int


@dataclass
class TarMembers:
    """What a tar holds.

    Attributes:
        files: its regular files; those of a tar within are named ``INNER/NAME`` without the ``.tar``.
        problems: the name of each member that is refused, and the reason.
    """

    files: list[TarFile] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)


def read_members(path: Path, contents_of: frozenset[str], max_bytes: int, take: TakeContent) -> TarMembers:
    """List a tar.

    Args:
        path: of the tar.
        contents_of: endings of names, in lower case, of the members whose content is wanted.
        max_bytes: larger ones of them are left alone.
        take: is given the name and content of each of them.

    Raises:
        UserError: the tar, or one within it, is compressed, damaged or cut off.
    """
    found = TarMembers()
    wanted = tuple(contents_of)

    def read(stream: BinaryIO, location: str, size: int, start: int, prefix: str, is_inner: bool) -> None:
        _refuse_other_kinds(path, location, stream.read(START_BYTES), is_inner)
        stream.seek(0)
        for member in _safe_members(stream, location, size, found, prefix):
            name = prefix + member.name.removeprefix("./")
            place = start + member.offset_data
            if name.lower().endswith(COMPRESSED_TARS) and not is_hidden(name):
                reason = (
                    "is a compressed tar within a tar, which is not read: decompress it and write the outer tar anew"
                )
                found.problems.append((name, reason))
            elif not name.lower().endswith(".tar") or is_hidden(name):
                found.files.append(TarFile(name, place, member.size, int(member.mtime)))
                if wanted and name.lower().endswith(wanted) and member.size <= max_bytes and not is_hidden(name):
                    stream.seek(member.offset_data)
                    take(name, stream.read(member.size))
            elif is_inner:
                found.problems.append((name, "is a tar within a tar within a tar: unpack it first"))
            else:
                window = cast(BinaryIO, _Window(stream, member.offset_data, member.size))
                read(window, f"{path} member {escaped(name)}", member.size, place, f"{name[:-4]}/", True)

    try:
        with path.open("rb") as stream:
            read(stream, str(path), path.stat().st_size, 0, "", False)
    except (OSError, *DAMAGED_HEADER) as error:
        raise UserError(f"{path} cannot be read as a tar file ({short_error(error)}): fetch it again") from error
    return found


def _refuse_other_kinds(path: Path, location: str, start: bytes, is_inner: bool) -> None:
    """Refuse what is called a tar and is another kind of file by its first bytes.

    Raises:
        UserError: it is compressed, or another archive.
    """
    if program := decompressor(start):
        way = f"it, such as with {program}, and write the outer tar anew"
        if not is_inner:
            way = f"it first, such as with {decompress_command(path, program)}"
        raise UserError(f"{location} is compressed, so that its images cannot be read at random: decompress {way}")
    if not is_inner and (refusal := pickle_refusal(path)):
        raise UserError(f"{location} is {refusal}")
    if kind := archive_kind(start):
        way = "build it by the source zip" if kind == "zip" and not is_inner else "unpack it first"
        raise UserError(f"{location} is no tar but a {kind} archive: {way}")


def _safe_members(
    stream: BinaryIO, location: str, size: int, found: TarMembers, prefix: str
) -> Iterator[tarfile.TarInfo]:
    """The regular members; others become problems.

    Raises:
        UserError: the archive is damaged or cut off.
    """
    try:
        archive = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 (the caller owns the stream)
    except DAMAGED_HEADER as error:
        raise UserError(f"{location} cannot be read as a tar file ({short_error(error)}): fetch it again") from error
    name = ""
    while True:
        try:
            member = archive.next()
        except tarfile.ReadError as error:
            raise UserError(f"{location} is damaged or cut off at byte {archive.offset}: fetch it again") from error
        except DAMAGED_HEADER as error:
            after = f", after member {escaped(name)}" if name else ""
            raise UserError(
                f"{location} has a damaged header at byte {archive.offset}{after} ({short_error(error)}): "
                "fetch it again"
            ) from error
        if member is None:
            break
        # tarfile keeps every member that it has read
        archive.members = []  # type: ignore[attr-defined]
        name = member.name.removeprefix("./")
        missing = member.offset_data + member.size - size
        if member.isreg() and missing > 0:
            # the members after this one are unknown, so --on-error skip cannot continue
            raise UserError(
                f"{location} member {escaped(name)} is cut off {missing} bytes before its end: fetch it again"
            )
        if reason := unsafe_name(member.name) or unsafe_kind(member):
            found.problems.append((prefix + name, reason))
        elif member.isreg():
            yield member
    stream.seek(archive.offset)
    # tarfile treats a damaged header as the archive's end
    end = stream.read(_BLOCK_BYTES)
    if len(end) != _BLOCK_BYTES or end.strip(b"\0"):
        raise UserError(f"{location} is damaged or cut off at byte {archive.offset}: fetch it again")


def is_hidden(name: str) -> bool:
    """Whether a member is hidden or in a folder that macOS adds to archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


class _Window(io.RawIOBase):
    """A part of a file as a file: a tar within a tar.

    Args:
        stream: the file.
        start: offset of the part.
        size: of the part.
    """

    def __init__(self, stream: BinaryIO, start: int, size: int) -> None:
        self._stream, self._start, self._size, self._position = stream, start, size, 0

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the part."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move within the part; whence as for any file."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Read up to ``size`` bytes of the part; all if negative."""
        left = max(self._size - self._position, 0)
        self._stream.seek(self._start + self._position)
        content = self._stream.read(left if size < 0 else min(size, left))
        self._position += len(content)
        return content
