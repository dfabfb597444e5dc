"""Samples in the order in which a shard holds them, found by its tar headers alone, in one passage."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from latentscale.shards.archive_safety import unsafe_kind, unsafe_name
from latentscale.shards.sample import Sample
from latentscale.shards.sequential_file import SequentialFile
from latentscale.shards.shard_format import TAR_BLOCK_BYTES
from latentscale.shards.shard_writer import LABEL_MEMBER, ORIGIN_MEMBER

# what tarfile raises of headers that are damaged, or made to do harm
DAMAGED_HEADER = (tarfile.TarError, ValueError, LookupError, ArithmeticError, TypeError, RecursionError)


class DamagedShard(Exception):
    """What is wrong with a tar file, in words that follow its name."""


@dataclass(frozen=True)
class Member:
    """One file in a shard: where its bytes begin, and the bytes."""

    offset: int
    content: bytes


@dataclass
class StoredSample:
    """The members of one sample.

    Attributes:
        key: what their names have in common.
        members: by extension.
    """

    key: str
    members: dict[str, Member] = field(default_factory=dict)

    def image(self) -> tuple[str, Member]:
        """The extension and the member of the image.

        Raises:
            DamagedShard: there is no image, or more than one.
        """
        images = [extension for extension in self.members if extension not in (LABEL_MEMBER, ORIGIN_MEMBER)]
        if len(images) != 1:
            raise DamagedShard(f"has {len(images)} images under {self.key}")
        return images[0], self.members[images[0]]


def stored_samples(file: SequentialFile) -> Iterator[StoredSample]:
    """Walk a shard.

    Args:
        file: at its beginning.

    Raises:
        DamagedShard: a header is damaged, or the archive ends early.
        OSError: it cannot be read.
    """
    sample: StoredSample | None = None
    try:
        archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (its stream is the caller's)
    except DAMAGED_HEADER as error:
        raise DamagedShard(f"is no tar file ({short_error(error)})") from error
    for member in _members(archive):
        key, dot, extension = member.name.partition(".")
        reason = unsafe_name(member.name) or unsafe_kind(member)
        if reason or not member.isreg() or not dot or "/" in member.name:
            raise DamagedShard(f"has a member {member.name!a} that {reason or 'is no part of a sample'}")
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = StoredSample(key)
        if extension in sample.members:
            raise DamagedShard(f"has member {member.name} twice")
        file.seek(member.offset_data)
        content = file.read(max(member.size, 0))
        if len(content) != member.size:
            raise DamagedShard(f"is cut off within member {member.name}")
        sample.members[extension] = Member(member.offset_data, content)
    if sample is not None:
        yield sample
    file.seek(archive.offset)
    # tarfile takes a damaged header for the archive's end
    if (block := file.read(TAR_BLOCK_BYTES)).strip(b"\0") or len(block) < TAR_BLOCK_BYTES:
        raise DamagedShard(f"is damaged or cut off at byte {archive.offset}")


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    last = ""
    while True:
        try:
            member = archive.next()
        except tarfile.ReadError as error:
            raise DamagedShard(f"is cut off at byte {archive.offset}") from error
        except DAMAGED_HEADER as error:
            raise DamagedShard(f"has a damaged header at byte {archive.offset}{last} ({short_error(error)})") from error
        if member is None:
            return
        yield member
        last = f", after member {member.name!a}"
        # tarfile remembers every member that it has passed
        archive.members = []  # type: ignore[attr-defined]


def short_error(error: BaseException) -> str:
    """What tarfile says, in one short line."""
    return ascii(str(error))[1:-1][:80] or type(error).__name__


def read_samples(file: SequentialFile) -> Iterator[Sample]:
    """The samples of a shard, with all that was kept of them.

    Raises:
        DamagedShard: as of :func:`stored_samples`, or a label or origin is not readable.
        OSError: the shard cannot be read.
    """
    for stored in stored_samples(file):
        extension, image = stored.image()
        label = origin = None
        try:
            if (member := stored.members.get(LABEL_MEMBER)) is not None:
                label = int(member.content)
            if (member := stored.members.get(ORIGIN_MEMBER)) is not None:
                origin = _object(member.content)
        except ValueError as error:
            raise DamagedShard(f"has a label or origin under {stored.key} that cannot be read") from error
        yield Sample(image.content, extension, label, origin)


def _object(content: bytes) -> dict[str, Any]:
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
