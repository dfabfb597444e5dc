"""Reading the samples of a shard in order, in one forward pass over its tar headers (without the index)."""

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

# what tarfile raises for damaged or malicious headers
DAMAGED_HEADER = (tarfile.TarError, ValueError, LookupError, ArithmeticError, TypeError, RecursionError)


class DamagedShard(Exception):
    """A shard is damaged; the message continues a sentence that starts with the file's name."""


@dataclass(frozen=True)
class Member:
    """One file in a shard: the offset of its content in bytes, and the content."""

    offset: int
    content: bytes


@dataclass
class StoredSample:
    """The members of one sample.

    Attributes:
        key: the common stem of the members' names.
        members: by file extension.
    """

    key: str
    members: dict[str, Member] = field(default_factory=dict)

    def image(self) -> tuple[str, Member]:
        """Return the extension and the member of the image.

        Raises:
            DamagedShard: there is no image, or more than one.
        """
        images = [extension for extension in self.members if extension not in (LABEL_MEMBER, ORIGIN_MEMBER)]
        if len(images) != 1:
            raise DamagedShard(f"has {len(images)} images under key {self.key} instead of 1")
        return images[0], self.members[images[0]]


def stored_samples(file: SequentialFile) -> Iterator[StoredSample]:
    """Yield the samples of a shard in order.

    Args:
        file: the shard, at its beginning.

    Raises:
        DamagedShard: a header is damaged, or the archive ends early.
        OSError: the shard cannot be read.
    """
    sample: StoredSample | None = None
    try:
        archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (the caller owns the stream)
    except DAMAGED_HEADER as error:
        raise DamagedShard(f"is not a tar file ({short_error(error)})") from error
    for member in _members(archive):
        key, dot, extension = member.name.partition(".")
        reason = unsafe_name(member.name) or unsafe_kind(member)
        if reason or not member.isreg() or not dot or "/" in member.name:
            raise DamagedShard(f"has a member {member.name!a} that {reason or 'does not belong to a sample'}")
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
    # tarfile treats a damaged header as the end of the archive
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
        # tarfile keeps every member that it has read
        archive.members = []  # type: ignore[attr-defined]


def short_error(error: BaseException) -> str:
    """Return the message of an error, shortened to 80 characters."""
    return ascii(str(error))[1:-1][:80] or type(error).__name__


def read_samples(file: SequentialFile) -> Iterator[Sample]:
    """Yield the samples of a shard with label and origin.

    Raises:
        DamagedShard: see :func:`stored_samples`; or a label or origin cannot be read.
        OSError: the shard cannot be read.
    """
    for stored in stored_samples(file):
        extension, image = stored.image()
        label = origin = None
        try:
            if (member := stored.members.get(LABEL_MEMBER)) is not None:
                label = int(member.content)
            if (member := stored.members.get(ORIGIN_MEMBER)) is not None:
                origin = _json_object(member.content)
        except ValueError as error:
            raise DamagedShard(f"has an unreadable label or origin under key {stored.key}") from error
        yield Sample(image.content, extension, label, origin)


def _json_object(content: bytes) -> dict[str, Any]:
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
