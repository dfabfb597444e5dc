"""The shards of one split, written one after another."""

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
    """Appends samples to tar shards with an index beside each; equal samples give equal bytes.

    A shard ends before it would grow beyond ``shard_bytes``, but holds one sample at least. It is on the disk,
    with its index, when ``append`` or ``finish`` gives its entry; an unfinished one is only a file in the folder.

    Args:
        folder: that exists; shards of the same names are replaced.
        labels: how many labels have a name.
        shard_bytes: the size at which a shard ends.
        where: names the dataset in messages.
        entries, extensions: of the shards that an earlier writer has finished.

    Attributes:
        entries: of the finished shards.
        extensions: of the images so far, in the order in which they first came.
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
        self._folder, self._labels, self._shard_bytes, self._where = folder, labels, shard_bytes, location
        self._written = sum(entry.count for entry in entries)
        self._stream: BinaryIO | None = None
        self._tar: Any = None
        self._index = ShardIndex()

    def append(self, sample: Sample) -> ShardEntry | None:
        """Write one sample; gives the entry of the shard that had to end before it, if one did.

        Raises:
            UserError: a label without a name.
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
        """End the last shard; gives its entry, or None where nothing was appended since the last ended."""
        return None if self._tar is None else self._end_shard()

    def close(self) -> None:
        """Let go of an unfinished shard's file, whose content counts for nothing."""
        if self._stream is not None:
            # On a full disk the end of the archive cannot be written either.
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
                    f"{self._where}: sample {self._written} has label {sample.label}, but there are {self._labels} "
                    "label names: name them all"
                )
            members[LABEL_MEMBER] = str(sample.label).encode("ascii")
        if sample.origin is not None:
            members[ORIGIN_MEMBER] = json.dumps(sample.origin, separators=(",", ":")).encode("ascii")
        return members

    def _stem(self) -> str:
        return f"shard-{len(self.entries):06d}"

    def _start_shard(self) -> None:
        # It imports torch, which the readers of this module can do without.
        from webdataset import TarWriter

        self._index = ShardIndex()
        self._stream = (self._folder / f"{self._stem()}.tar").open("wb")
        # Fixed owner and time: the bytes of a shard depend on its samples alone. A time that is not an integer
        # would cost every member an extended header.
        self._tar = TarWriter(self._stream, user="latentscale", group="latentscale", mtime=0, encoder=False)

    def _write(self, sample: Sample, members: dict[str, bytes], size: int) -> None:
        extension = sample.extension.lower().lstrip(".")
        if extension not in self.extensions:
            self.extensions.append(extension)
        before = self._tar.tarstream.offset
        self._tar.write({"__key__": f"{self._written:09d}", **members})
        if self._tar.tarstream.offset - before != size:
            raise RuntimeError("webdataset.TarWriter no longer writes one header a member: the index would be wrong")
        # TarWriter writes a sample's members in alphabetical order.
        ahead = sum(_member_bytes(content) for name, content in members.items() if name < extension)
        self._index.offset.append(before + ahead + TAR_BLOCK_BYTES)
        self._index.size.append(len(sample.image))
        self._index.label.append(NO_LABEL if sample.label is None else sample.label)
        self._index.extension.append(self.extensions.index(extension))
        self._index.crc32.append(crc32(sample.image))
        self._written += 1

    def _end_shard(self) -> ShardEntry:
        assert self._stream is not None
        self._tar.close()
        self._stream.close()
        self._stream = self._tar = None
        tar_path = self._folder / f"{self._stem()}.tar"
        index_path = self._folder / f"{self._stem()}.index.safetensors"
        flush_to_disk(tar_path)
        arrays = {key: np.asarray(getattr(self._index, key), dtype) for key, dtype in INDEX_TYPES.items()}
        # safetensors' own writing of files makes them readable by their owner alone
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
