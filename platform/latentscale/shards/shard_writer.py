"""Writing the shards of one split."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors.numpy import save

from latentscale.atomic import flush_to_disk
from latentscale.errors import UserError
from latentscale.shards.sample import Sample
from latentscale.shards.shard_format import INDEX_TYPES, NO_LABEL, TAR_BLOCK_BYTES, ShardEntry, ShardIndex
from latentscale.storage.checksums import crc32, sha256_of_file

LABEL_MEMBER = "cls"
ORIGIN_MEMBER = "json"


class ShardWriter:
    """Writes samples to tar shards with one index each; the same samples give the same bytes.

    A shard is closed before it would exceed ``shard_bytes``, but holds at least one sample. When ``append`` or
    ``finish`` returns a shard's entry, the shard and its index are flushed to disk.

    Args:
        folder: an existing folder; shards of the same names are overwritten.
        labels: the number of named labels.
        shard_bytes: the maximum size of a shard.
        location: the dataset's name in messages.
        entries, extensions: those of the shards that an earlier writer has finished, to continue after them.

    Attributes:
        entries: one entry for each finished shard.
        extensions: the file extensions so far, in order of first appearance.
    """

    def __init__(
        self,
        folder: Path,
        labels: int,
        shard_bytes: int,
        location: Path,
        entries: Sequence[ShardEntry] = (),
        extensions: Sequence[str] = (),
    ) -> None:
        self.entries = list(entries)
        self.extensions = list(extensions)
        self._folder, self._labels, self._shard_bytes, self._location = folder, labels, shard_bytes, location
        self._count = sum(entry.count for entry in entries)
        self._stream: BinaryIO | None = None
        self._tar: Any = None
        self._index = ShardIndex()

    def append(self, sample: Sample) -> ShardEntry | None:
        """Write one sample; returns the entry of the previous shard if this sample starts a new one.

        Raises:
            UserError: the label has no name.
            OSError: the folder cannot be written.
        """
        members = self._members(sample)
        finished = None
        size = sum(map(_member_bytes, members.values()))
        if self._tar is not None and self._tar.tarstream.offset + size > self._shard_bytes:
            finished = self._end_shard()
        if self._tar is None:
            self._start_shard()
        self._write(sample, members, size)
        return finished

    def finish(self) -> ShardEntry | None:
        """Close the last shard; returns its entry, or None if no shard is open."""
        return None if self._tar is None else self._end_shard()

    def close(self) -> None:
        """Close the file of an unfinished shard without finishing the shard."""
        if self._stream is not None:
            # on a full disk, writing the end of the archive fails too
            with suppress(OSError):
                self._tar.close()
            with suppress(OSError):
                self._stream.close()
            self._stream = self._tar = None

    def _members(self, sample: Sample) -> dict[str, bytes]:
        extension = sample.extension.lower().lstrip(".")
        members = {extension: sample.image}
        if sample.label is not None:
            if not 0 <= sample.label < self._labels:
                raise UserError(
                    f"{self._location}: sample {self._count} has label {sample.label}, but there are only"
                    f" {self._labels} label names: name every label"
                )
            members[LABEL_MEMBER] = str(sample.label).encode("ascii")
        if sample.origin is not None:
            members[ORIGIN_MEMBER] = json.dumps(sample.origin, separators=(",", ":")).encode("ascii")
        return members

    def _stem(self) -> str:
        return f"shard-{len(self.entries):06d}"

    def _start_shard(self) -> None:
        # imported late: it imports torch, which importing this module must not
        from webdataset import TarWriter

        self._index = ShardIndex()
        self._stream = (self._folder / f"{self._stem()}.tar").open("wb")
        # fixed owner and time, so that the bytes of a shard depend on its samples alone; the time is an integer because
        # any other would add an extended header to every member
        self._tar = TarWriter(self._stream, user="latentscale", group="latentscale", mtime=0, encoder=False)

    def _write(self, sample: Sample, members: dict[str, bytes], size: int) -> None:
        extension = sample.extension.lower().lstrip(".")
        if extension not in self.extensions:
            self.extensions.append(extension)
        before = self._tar.tarstream.offset
        self._tar.write({"__key__": f"{self._count:09d}", **members})
        if self._tar.tarstream.offset - before != size:
            raise RuntimeError("webdataset.TarWriter no longer writes one header per member: the index would be wrong")
        # TarWriter writes a sample's members in alphabetical order
        preceding = sum(_member_bytes(content) for name, content in members.items() if name < extension)
        self._index.offset.append(before + preceding + TAR_BLOCK_BYTES)
        self._index.size.append(len(sample.image))
        self._index.label.append(NO_LABEL if sample.label is None else sample.label)
        self._index.extension.append(self.extensions.index(extension))
        self._index.crc32.append(crc32(sample.image))
        self._count += 1

    def _end_shard(self) -> ShardEntry:
        assert self._stream is not None
        self._tar.close()
        self._stream.close()
        self._stream = self._tar = None
        tar_path = self._folder / f"{self._stem()}.tar"
        index_path = self._folder / f"{self._stem()}.index.safetensors"
        flush_to_disk(tar_path)
        arrays = {key: np.asarray(getattr(self._index, key), dtype) for key, dtype in INDEX_TYPES.items()}
        # safetensors' save_file makes files readable by their owner only
        index_path.write_bytes(save(arrays))
        flush_to_disk(index_path)
        entry = ShardEntry(
            file=tar_path.name,
            index=index_path.name,
            count=len(self._index.size),
            bytes=tar_path.stat().st_size,
            sha256=sha256_of_file(tar_path),
            index_sha256=sha256_of_file(index_path),
        )
        self.entries.append(entry)
        return entry


def _member_bytes(content: bytes) -> int:
    return TAR_BLOCK_BYTES + -(-len(content) // TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES
