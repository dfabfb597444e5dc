"""Reading a dataset by (shard, member); latentscale.shards.shard_format describes the folder layout."""

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

# each stream reads two shards at once; the index of a 256 MB shard of 8×8 images takes 2.5 MB
_INDEX_CACHE_BYTES = 64 * 2**20
_OPEN_SHARDS = 64
_SPARSE_THREADS = 16
_MAX_RUN = 100
_MAX_RUN_BYTES = 4 * 2**20


class ShardedDataset:
    """A dataset opened for reading by (shard, member); thread-safe, and picklable to worker processes.

    Args:
        folder: the dataset's folder; a path is a local folder.
        description: the content of its dataset.json.

    Attributes:
        folder: the dataset's folder.
        path: the folder's path, or its URL if it is remote.
        name: the dataset's name.
        shape: (C, H, W) of every image, or (D,) of every point.
        count: N, the number of samples.
        shard_counts: the number of samples of each shard, int64 ``[shards]``.
        shard_sizes_bytes: the sizes of the tar files, int64 ``[shards]``.
        labels: the label names, empty for unlabelled data.
        label_sizes: the number of categories of each label; one entry unless the names are combinations of labels.
        licence: the data's licence, as text.
        extensions: the file extensions, which the indexes refer to by position.
        fingerprint: SHA-256 over shape, labels and the checksums of all files, so that equal datasets have equal
            fingerprints. For generated data it is taken from dataset.json (a SHA-256 over the values).
        independent: whether the samples are independent draws, so that any prefix is a fair sample.
        held: open shards by number; reading uses these descriptors, even after the files are unlinked.
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
        """Open a dataset written by ``latentscale shards build``; in a local folder, check the sizes of all files.

        Args:
            path: the folder or its URL.
            options: for URLs, how files are fetched and cached; for folders, whether damaged ones are accepted.

        Raises:
            UserError: naming the file that is missing, incomplete, inconsistent or of a newer format.
        """
        if is_remote(path):
            if options is None:
                raise UserError(f"{path} is a URL: pass StorageOptions, which say where its files are cached")
            return cls.in_folder(CachedFolder(str(path), options))
        return cls.in_folder(LocalFolder(Path(path), options is not None and options.skip_damaged))

    @classmethod
    def in_folder(cls, folder: Folder) -> "ShardedDataset":
        """Open a dataset in a folder object; see :meth:`open`."""
        location, description = folder.location(DATASET_FILE), read_description(folder)
        try:
            dataset = cls(folder, description)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{location} is incomplete ({error!r}): rebuild the dataset") from error
        total = int(dataset.shard_counts.sum())
        if dataset.count != total or dataset.count < 1:
            raise UserError(
                f"{location} lists {counted(dataset.count, 'sample')}, but its shards have {total}: rebuild the dataset"
            )
        folder.check(file for shard in range(len(dataset._shards)) for file in dataset._files(shard))
        return dataset

    def location(self, shard: int, member: int) -> str:
        """Return the name of a sample for messages: file and member number."""
        return f"{self.folder.location(self._shards[shard].file)} member {member}"

    def tar(self, shard: int) -> StoredFile:
        """Return the tar file of a shard."""
        return self._files(shard)[0]

    def read(self, shard: int, member: int) -> tuple[bytes, str, int]:
        """Read one sample: the encoded file, its extension and its label (−1 if unlabelled).

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
                f"{self.location(shard, member)} is damaged (its CRC-32 is not the one in the index): {self._remedy}"
            )
        return image, self.extensions[index.extension[member]], int(index.label[member])

    def read_together(self, places: Sequence[tuple[int, int]]) -> list[tuple[bytes, int]]:
        """Read the encoded files and labels of several samples; takes a third of the CPU time of ``read``.

        Args:
            places: (shard, member) of each sample.

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
                # tries once more, and raises an error that names the problem
                image, _, label = self.read(shard, member)
                found.append((image, label))
        return found

    def _opened(self, shard: int) -> OpenFile:
        return self.held.get(shard) or self._open_shards.get(shard, lambda: self.folder.open(self.tar(shard)))

    def read_sparse(self, places: Sequence[tuple[int, int]]) -> Iterator[tuple[bytes, str, int]]:
        """Yield what ``read`` returns for each (shard, member), without fetching whole shards."""
        if not self.folder.remote:
            yield from (self.read(shard, member) for shard, member in places)
            return
        with ThreadPoolExecutor(_SPARSE_THREADS, "sparse read") as threads:
            for run in threads.map(self._read_run, runs_of(places)):
                yield from run

    def _read_run(self, run: Sequence[tuple[int, int]]) -> list[tuple[bytes, str, int]]:
        """Read adjacent members of a shard in one range request, or in several if the range is large."""
        shard, members = run[0][0], [member for _, member in run]
        self.folder.open(self._files(shard)[1])  # several threads fetch at once, but loading an index holds a lock
        index = self._index(shard)
        starts, sizes = index.offset[members].tolist(), index.size[members].tolist()
        begin, end = min(starts), max(start + size for start, size in zip(starts, sizes, strict=True))
        if len(run) > 1 and end - begin > _MAX_RUN_BYTES:
            half = len(run) // 2
            return self._read_run(run[:half]) + self._read_run(run[half:])
        content = self.folder.read_range(self.tar(shard), end - begin, begin)
        if content is None:
            return [self.read(*place) for place in run]
        found = []
        for start, size, member in zip(starts, sizes, members, strict=True):
            image = content[start - begin :][:size]
            if index.crc32 is not None and crc32(image) != index.crc32[member]:
                # reads from the whole shard, or raises an error that names the problem
                found.append(self.read(shard, member))
            else:
                found.append((image, self.extensions[index.extension[member]], int(index.label[member])))
        return found

    def fetch(self, shard: int, needed: bool = True, make_room: MakeRoom = nothing_to_release) -> OpenFile | None:
        """Open and hold a shard for ``held`` and load its index, fetching both if they are not cached.

        Args:
            shard: the shard's number.
            needed: whether to wait; otherwise returns None if another process is fetching the shard or the node's cache
                has no room.
            make_room: called if a needed file finds the disk full; see MakeRoom.

        Raises:
            UserError: the shard cannot be fetched or read.
        """
        tar, index_file = self._files(shard)
        open_file = partial(self.folder.open, hold=True, make_room=make_room) if needed else self.folder.open_ahead
        try:
            # the index first: it stays in memory, whereas a tar without its index would occupy the cache unused
            if shard not in self._indexes:
                # fetched before the lock of the index cache is taken, so that other threads can go on
                index = open_file(index_file)
                if index is None:
                    return None
                self._indexes.get(shard, lambda: self._load_index(shard, index))
            opened = open_file(tar)
        except OSError as error:
            raise read_error(self.location(shard, 0), error) from error
        # it may have been evicted since, to make room for a file that is needed now; keeping it open would occupy disk
        # space that no cache counts
        return None if opened is None or (opened.unlinked and not needed) else opened

    def label_table(self) -> NDArray[np.int64]:
        """Return the categories of each stored label, ``[labels, d_l]``, the last one varying fastest."""
        if not self.labels:
            return np.empty((0, 0), dtype=np.int64)
        return np.stack(np.unravel_index(np.arange(len(self.labels)), self.label_sizes), axis=1)

    def shard_labels(self, shard: int) -> NDArray[np.int64]:
        """Return the stored label of each member of a shard, −1 if unlabelled, ``[samples]``; reads only the index."""
        labels: NDArray[np.int64] = self._load_index(shard).label.astype(np.int64)
        return labels

    def stored_labels(self) -> NDArray[np.int64]:
        """Return the stored label of every sample, −1 if unlabelled, ``[N]``; reads only the indexes."""
        shards = range(len(self._shards))
        if not self.folder.remote:
            return np.concatenate([self.shard_labels(shard) for shard in shards])
        with ThreadPoolExecutor(_SPARSE_THREADS, "index read") as threads:
            return np.concatenate(list(threads.map(self.shard_labels, shards)))

    def label_counts(self) -> NDArray[np.int64]:
        """Count the samples of each label, ``[labels]``; reads only the indexes."""
        labels = self.stored_labels()
        return np.bincount(labels[labels >= 0], minlength=len(self.labels)).astype(np.int64)

    def verify(self) -> None:
        """Read all files and compare their checksums.

        Raises:
            UserError: naming the first file with a wrong checksum.
        """
        for shard in range(len(self._shards)):
            for file in self._files(shard):
                with self.folder.stream(file) as stream:
                    if _sha256(stream) != file.sha256:
                        raise UserError(
                            f"{self.folder.location(file.name)} is damaged (its SHA-256 is not the one in"
                            f" {DATASET_FILE}): copy it again or rebuild the dataset"
                        )

    @property
    def _remedy(self) -> str:
        """Return the remedy for a damaged file."""
        if self.folder.remote:
            return "remove its copy from the node's cache"
        return "copy it again or rebuild the dataset"

    def _files(self, shard: int) -> tuple[StoredFile, StoredFile]:
        """Return the tar and the index of a shard."""
        entry = self._shards[shard]
        max_bytes = 4096 + entry.count * sum(np.dtype(kind).itemsize for kind in INDEX_TYPES.values())
        return (
            StoredFile(entry.file, entry.sha256, entry.bytes, entry.bytes),
            StoredFile(entry.index, entry.index_sha256, None, max_bytes),
        )

    def _index(self, shard: int) -> ShardIndex:
        return self._indexes.get(shard, lambda: self._load_index(shard))

    def _load_index(self, shard: int, opened: OpenFile | None = None) -> ShardIndex:
        entry, file = self._shards[shard], self._files(shard)[1]
        location = self.folder.location(file.name)
        try:
            content = (opened or self.folder.open(file)).read_all()
            if hashlib.sha256(content).hexdigest() != file.sha256:
                raise UserError(f"{location} is damaged (its SHA-256 is not the one in {DATASET_FILE}): {self._remedy}")
            arrays = load(content)
        except (OSError, SafetensorError) as error:
            if is_open_file_limit(error):
                raise open_file_limit_error(location) from error
            raise UserError(f"{location} cannot be read ({error}): copy it again or rebuild the dataset") from error
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
            raise UserError(f"{location} does not match {entry.file}: copy both again or rebuild the dataset")
        return index


def runs_of(places: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Group places (shard, member), in order, into runs of at most 100 consecutive members of one shard."""
    runs: list[list[tuple[int, int]]] = []
    for shard, member in places:
        if runs and runs[-1][-1] == (shard, member - 1) and len(runs[-1]) < _MAX_RUN:
            runs[-1].append((shard, member))
        else:
            runs.append([(shard, member)])
    return runs


def _sha256(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(2**20):
        digest.update(chunk)
    return digest.hexdigest()
