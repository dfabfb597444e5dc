"""Samples in the order in which a shard holds them, found by its tar headers alone."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentscale.data.sample import Sample
from latentscale.data.shard_index import TAR_BLOCK_BYTES
from latentscale.data.shard_writer import LABEL_MEMBER, ORIGIN_MEMBER


class DamagedShard(Exception):
    """What is wrong with a tar file, in words that follow its name."""


@dataclass
class StoredSample:
    """The members of one sample.

    Attributes:
        key: what their names have in common.
        members: by extension.
    """

    key: str
    members: dict[str, tarfile.TarInfo] = field(default_factory=dict)

    def image(self) -> tuple[str, tarfile.TarInfo]:
        """The extension and the member of the image.

        Raises:
            DamagedShard: there is no image, or more than one.
        """
        images = [extension for extension in self.members if extension not in (LABEL_MEMBER, ORIGIN_MEMBER)]
        if len(images) != 1:
            raise DamagedShard(f"has {len(images)} images under {self.key}")
        return images[0], self.members[images[0]]


def stored_samples(path: Path) -> Iterator[StoredSample]:
    """Walk the headers of a shard.

    Raises:
        DamagedShard: a header is damaged, or the archive ends early.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    sample: StoredSample | None = None
    with path.open("rb") as stream:
        try:
            archive = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 (its stream is closed)
        except tarfile.TarError as error:
            raise DamagedShard(f"is no tar file ({error})") from error
        for member in _members(archive):
            key, dot, extension = member.name.partition(".")
            if not member.isreg() or not dot or "/" in member.name:
                raise DamagedShard(f"has a member {member.name!a} that is no part of a sample")
            if member.offset_data + member.size > size:
                raise DamagedShard(f"is cut off within member {member.name}")
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample
                sample = StoredSample(key)
            if extension in sample.members:
                raise DamagedShard(f"has member {member.name} twice")
            sample.members[extension] = member
        if sample is not None:
            yield sample
        stream.seek(archive.offset)
        # tarfile takes a damaged header for the archive's end
        if (block := stream.read(TAR_BLOCK_BYTES)).strip(b"\0") or len(block) < TAR_BLOCK_BYTES:
            raise DamagedShard(f"is damaged or cut off at byte {archive.offset}")


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while True:
        try:
            member = archive.next()
        except tarfile.TarError as error:
            raise DamagedShard(f"is cut off at byte {archive.offset}") from error
        if member is None:
            return
        yield member
        # tarfile remembers every member that it has passed
        archive.members = []  # type: ignore[attr-defined]


def read_samples(path: Path) -> Iterator[Sample]:
    """The samples of a shard, with all that was kept of them.

    Raises:
        DamagedShard: as of :func:`stored_samples`, or a label or origin is not readable.
        OSError: the shard cannot be read.
    """
    with path.open("rb") as stream:

        def content(member: tarfile.TarInfo) -> bytes:
            stream.seek(member.offset_data)
            return stream.read(member.size)

        for stored in stored_samples(path):
            extension, image = stored.image()
            label = origin = None
            try:
                if (member := stored.members.get(LABEL_MEMBER)) is not None:
                    label = int(content(member))
                if (member := stored.members.get(ORIGIN_MEMBER)) is not None:
                    origin = _object(content(member))
            except ValueError as error:
                raise DamagedShard(f"has a label or origin under {stored.key} that cannot be read") from error
            yield Sample(content(image), extension, label, origin)


def _object(content: bytes) -> dict[str, Any]:
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
