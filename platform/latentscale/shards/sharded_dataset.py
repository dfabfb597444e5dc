"""Reading a dataset by (shard, member); what its folder holds is told in latentscale.shards.shard_format."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from latentscale.bounded_cache import BoundedCache
from latentscale.errors import UserError
from latentscale.shards.dataset_json import read_description
from latentscale.shards.shard_format import (
    INDEX_TYPES,
    NO_LABEL,
    ShardEntry,
    ShardIndex,
    index_bytes,
    is_complete_index,
)
from latentscale.storage.cached_remote import CachedFolder
from latentscale.storage.checksums import crc32
from latentscale.storage.dataset_files import (
    DATASET_FILE,
    Folder,
    MakeRoom,
    OpenFile,
    StorageOptions,
    StoredFile,
    nothing_to_release,
)
from latentscale.storage.local import LocalFolder
from latentscale.storage.open_file_limit import is_open_file_limit, open_file_limit_error, read_error
from latentscale.storage.remote import is_remote
from latentscale.wording import counted

# Two shards a stream are read at once; a quarter of a GB of 8×8 images takes 2.5 MB of index.
_INDEX_CACHE_BYTES = 64 * 2**20
_OPEN_SHARDS = 64
_SPARSE_READS = 16
_MOST_RUN = 100
_MOST_RUN_BYTES = 4 * 2**20


class ShardedDataset:
    """A dataset opened for reading by (shard, member); thread-safe, and picklable to worker processes.

    Args:
        folder: where its files are, or a folder of this machine.
        description: the content of its dataset.json.

    Attributes:
        folder: where its files are.
        path: of the folder; a URL where it is remote.
        name: of the dataset.
        shape: (C, H, W) of every image, (D,) of points.
        count: N, samples of all shards.
        shard_counts: samples of each shard, int64 ``[shards]``.
        shard_sizes_bytes: of the tar files, int64 ``[shards]``.
        labels: names of the labels, empty for unlabelled data.
        label_sizes: number of categories of each label; one label unless the names are combinations of several.
        licence: of the data, in words.
        fingerprint: SHA-256 over shape, labels and the checksums of all files: equal where the data are
            equal. Of generated data: over their values, which dataset.json states.
        independent: whether the samples are independent draws, so that the first ones represent all of them.
        held: shards that are read through these descriptors, whatever becomes of their names.
    """

    def __init__(self, folder: Folder | Path, description: dict[str, Any]) -> None:
        self.folder: Folder = LocalFolder(folder) if isinstance(folder, Path) else folder
        self.path = self.folder.path
        self.name: str = description["name"]
        self.shape: tuple[int, ...] = tuple(description["shape"])
        self.count: int = description["count"]
        self.labels: list[str] = description["labels"]
        sizes = description.get("label_sizes") or ([len(self.labels)] if self.labels else [])
        self.label_sizes: tuple[int, ...] = tuple(sizes)
        self.licence: str = description["licence"]
        self.extensions: list[str] = description["extensions"]
        self._shards = [ShardEntry(**entry) for entry in description["shards"]]
        self.shard_counts = np.array([shard.count for shard in self._shards], dtype=np.int64)
        self.shard_sizes_bytes = np.array([shard.bytes for shard in self._shards], dtype=np.int64)
        content = [
            description["shape"],
            self.labels,
            *([sizes] if "label_sizes" in description else []),
            [[s.sha256, s.index_sha256] for s in self._shards],
        ]
        generated = description.get("generated")
        self.independent = generated is not None
        self.fingerprint: str = (
            generated["fingerprint"] if generated else hashlib.sha256(json.dumps(content).encode()).hexdigest()
        )
        self._indexes: BoundedCache[int, ShardIndex] = BoundedCache(_INDEX_CACHE_BYTES, index_bytes)
        self._open_shards: BoundedCache[int, OpenFile] = BoundedCache(_OPEN_SHARDS)
        self.held: dict[int, OpenFile] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "held": {}}

    @classmethod
    def open(cls, path: Path | str, options: StorageOptions | None = None) -> "ShardedDataset":
        """Open what ``latentscale shards build`` wrote, checking that a local folder's files are there in their sizes.

        Args:
            path: the folder, or its URL.
            options: for URLs: how files are fetched and kept; for folders: whether damaged ones are opened.

        Raises:
            UserError: naming the file that is missing, incomplete, inconsistent or of a newer format.
        """
        if is_remote(path):
            if options is None:
                raise UserError(f"{path} is a URL, to be opened with StorageOptions: say where its files are kept")
            return cls.in_folder(CachedFolder(str(path), options))
        return cls.in_folder(LocalFolder(Path(path), options is not None and options.skip_damaged))

    @classmethod
    def in_folder(cls, folder: Folder) -> "ShardedDataset":
        """See open."""
        location, description = folder.location(DATASET_FILE), read_description(folder)
        try:
            dataset = cls(folder, description)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{location} is incomplete ({error!r}): write the shards again") from error
        total = int(dataset.shard_counts.sum())
        if dataset.count != total or dataset.count < 1:
            raise UserError(
                f"{location} says {counted(dataset.count, 'sample')}, but its shards have {total}: write them again"
            )
        folder.check(file for shard in range(len(dataset._shards)) for file in dataset._files(shard))
        return dataset

    def location(self, shard: int, member: int) -> str:
        """The file and member, as messages name them."""
        return f"{self.folder.location(self._shards[shard].file)} member {member}"

    def tar(self, shard: int) -> StoredFile:
        """The file of a shard."""
        return self._files(shard)[0]

    def read(self, shard: int, member: int) -> tuple[bytes, str, int]:
        """The encoded image, its extension and its label (−1 without one).

        Raises:
            UserError: naming the file that is missing, truncated or inconsistent.
        """
        index = self._index(shard)
        size = int(index.size[member])
        try:
            image = self._opened(shard).read(size, int(index.offset[member]))
        except OSError as error:
            raise read_error(self.location(shard, member), error) from error
        if len(image) != size:
            raise UserError(
                f"{self.location(shard, member)} is cut off after {len(image)} of {size} bytes: copy the shard again"
            )
        if index.crc32 is not None and crc32(image) != index.crc32[member]:
            raise UserError(
                f"{self.location(shard, member)} is damaged (its CRC-32 is not the one in the index):"
                f" {self._copy_again}"
            )
        return image, self.extensions[index.extension[member]], int(index.label[member])

    def read_together(self, places: Sequence[tuple[int, int]]) -> list[tuple[bytes, int]]:
        """The encoded images and labels at some (shard, member): as ``read``, in a third of the processor's time.

        Raises:
            UserError: naming the file that is missing, truncated or inconsistent.
        """
        opened: dict[int, tuple[OpenFile, Any, Any, Any, Any]] = {}
        found = []
        for shard, member in places:
            try:
                if shard not in opened:
                    index = self._index(shard)
                    opened[shard] = self._opened(shard), index.size, index.offset, index.label, index.crc32
                file, sizes, offsets, labels, checksums = opened[shard]
                size = sizes[member]
                image = os.pread(file.descriptor, size, offsets[member])
                whole = len(image) == size and (checksums is None or crc32(image) == checksums[member])
            except OSError:
                whole = False
            if whole:
                found.append((image, labels[member]))
            else:
                image, _, label = self.read(shard, member)  # tries once more, and says what is wrong
                found.append((image, label))
        return found

    def _opened(self, shard: int) -> OpenFile:
        return self.held.get(shard) or self._open_shards.get(shard, lambda: self.folder.open(self.tar(shard)))

    def read_sparse(self, places: Sequence[tuple[int, int]]) -> Iterator[tuple[bytes, str, int]]:
        """What ``read`` gives for some (shard, member) here and there, without fetching whole shards for them."""
        if not self.folder.remote:
            yield from (self.read(shard, member) for shard, member in places)
            return
        with ThreadPoolExecutor(_SPARSE_READS, "sparse read") as threads:
            for run in threads.map(self._read_run, runs_of(places)):
                yield from run

    def _read_run(self, run: Sequence[tuple[int, int]]) -> list[tuple[bytes, str, int]]:
        """Members that stand side by side in a shard, in one range where that is not large."""
        shard, members = run[0][0], [member for _, member in run]
        self.folder.open(self._files(shard)[1])  # fetched beside others, while an index is loaded alone
        index = self._index(shard)
        starts, sizes = index.offset[members].tolist(), index.size[members].tolist()
        begin, end = min(starts), max(start + size for start, size in zip(starts, sizes, strict=True))
        if len(run) > 1 and end - begin > _MOST_RUN_BYTES:
            half = len(run) // 2
            return self._read_run(run[:half]) + self._read_run(run[half:])
        content = self.folder.read_range(self.tar(shard), end - begin, begin)
        if content is None:
            return [self.read(*place) for place in run]
        found = []
        for start, size, member in zip(starts, sizes, members, strict=True):
            image = content[start - begin :][:size]
            if index.crc32 is not None and crc32(image) != index.crc32[member]:
                found.append(self.read(shard, member))  # from the whole shard, or it says what is wrong
            else:
                found.append((image, self.extensions[index.extension[member]], int(index.label[member])))
        return found

    def fetch(self, shard: int, needed: bool = True, make_room: MakeRoom = nothing_to_release) -> OpenFile | None:
        """A shard, held (see OpenFile) and its index loaded, fetched where they are not at hand; for ``held``.

        Args:
            needed: wait for it; else None where another process fetches it or the node's cache has no room.
            make_room: where it is needed and the disk is full; see storage.MakeRoom.

        Raises:
            UserError: it cannot be had.
        """
        tar, index_file = self._files(shard)
        open_file = partial(self.folder.open, hold=True, make_room=make_room) if needed else self.folder.open_ahead
        try:
            # the index first: it stays in memory, while a tar that must wait for its index would be fetched for nothing
            if shard not in self._indexes:
                # not while the cache of indexes is locked: it is fetched beside others
                index = open_file(index_file)
                if index is None:
                    return None
                self._indexes.get(shard, lambda: self._load_index(shard, index))
            opened = open_file(tar)
        except OSError as error:
            raise read_error(self.location(shard, 0), error) from error
        # it may have made room for what others need at once; to keep it would take room that nobody counts
        return None if opened is None or (opened.unlinked and not needed) else opened

    def label_table(self) -> NDArray[np.int64]:
        """The categories that a stored label stands for, ``[labels, d_l]``, the last label's running fastest."""
        if not self.labels:
            return np.empty((0, 0), dtype=np.int64)
        return np.stack(np.unravel_index(np.arange(len(self.labels)), self.label_sizes), axis=1)

    def shard_labels(self, shard: int) -> NDArray[np.int64]:
        """The stored label of each member of a shard, −1 without one, ``[samples]``; reads its index."""
        labels: NDArray[np.int64] = self._load_index(shard).label.astype(np.int64)
        return labels

    def stored_labels(self) -> NDArray[np.int64]:
        """The stored label of every sample, −1 without one, ``[N]``; reads the indexes only."""
        shards = range(len(self._shards))
        if not self.folder.remote:
            return np.concatenate([self.shard_labels(shard) for shard in shards])
        with ThreadPoolExecutor(_SPARSE_READS, "index read") as threads:
            return np.concatenate(list(threads.map(self.shard_labels, shards)))

    def label_counts(self) -> NDArray[np.int64]:
        """How many samples carry each label, ``[labels]``; reads the indexes only."""
        labels = self.stored_labels()
        return np.bincount(labels[labels >= 0], minlength=len(self.labels)).astype(np.int64)

    def verify(self) -> None:
        """Read everything and compare the checksums.

        Raises:
            UserError: naming the first file whose bytes are not those that were written.
        """
        for shard in range(len(self._shards)):
            for file in self._files(shard):
                with self.folder.stream(file) as stream:
                    if _sha256(stream) != file.sha256:
                        raise UserError(
                            f"{self.folder.location(file.name)} is damaged (its SHA-256 differs):"
                            " copy it again or write the shards again"
                        )

    @property
    def _copy_again(self) -> str:
        """The remedy for a damaged file."""
        if self.folder.remote:
            return "remove its copy from the node's cache"
        return "copy it again or write the shards again"

    def _files(self, shard: int) -> tuple[StoredFile, StoredFile]:
        """The tar and the index of a shard."""
        entry = self._shards[shard]
        at_most = 4096 + entry.count * sum(np.dtype(kind).itemsize for kind in INDEX_TYPES.values())
        return (
            StoredFile(entry.file, entry.sha256, entry.bytes, entry.bytes),
            StoredFile(entry.index, entry.index_sha256, None, at_most),
        )

    def _index(self, shard: int) -> ShardIndex:
        return self._indexes.get(shard, lambda: self._load_index(shard))

    def _load_index(self, shard: int, opened: OpenFile | None = None) -> ShardIndex:
        entry, file = self._shards[shard], self._files(shard)[1]
        location = self.folder.location(file.name)
        try:
            content = (opened or self.folder.open(file)).read_all()
            if hashlib.sha256(content).hexdigest() != file.sha256:
                raise UserError(
                    f"{location} is damaged (its SHA-256 is not the one in {DATASET_FILE}): {self._copy_again}"
                )
            arrays = load(content)
        except (OSError, SafetensorError) as error:
            if is_open_file_limit(error):
                raise open_file_limit_error(location) from error
            raise UserError(f"{location} cannot be read ({error}): copy it again or write the shards again") from error
        index = ShardIndex(**{name: arrays.get(name) for name in INDEX_TYPES})
        consistent = is_complete_index(arrays) and (
            all(array.shape == (entry.count,) for array in arrays.values())
            and int(index.size.min()) >= 0
            and int(index.offset.min()) >= 0
            and int((index.offset + index.size).max()) <= entry.bytes
            and int(index.extension.max()) < len(self.extensions)
            and int(index.label.min()) >= NO_LABEL
            and int(index.label.max()) < max(len(self.labels), 0)
        )
        if not consistent:
            raise UserError(f"{location} does not belong to {entry.file}: copy both again or write the shards again")
        return index


def runs_of(places: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Places (shard, member) in their order, those that follow one another in a shard together, up to a number."""
    runs: list[list[tuple[int, int]]] = []
    for shard, member in places:
        if runs and runs[-1][-1] == (shard, member - 1) and len(runs[-1]) < _MOST_RUN:
            runs[-1].append((shard, member))
        else:
            runs.append([(shard, member)])
    return runs


def _sha256(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(2**20):
        digest.update(chunk)
    return digest.hexdigest()
