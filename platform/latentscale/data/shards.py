"""A dataset on disk: WebDataset tar shards, an index beside each, and a dataset.json.

    out/dataset.json                      what the dataset is, and the size and SHA-256 of every file
    out/shard-000000.tar                  000000000.cls 000000000.png 000000001.cls …, for any WebDataset
    reader out/shard-000000.index.safetensors    offset, size, label and extension of each image,
    ``[samples]``

The index makes a sample one ``pread``, so that reading may start at any position of any shard.
"""

import errno
import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import webdataset
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from latentscale.data.cache import BoundedCache
from latentscale.errors import UserError

FORMAT = "latentscale-shards"
VERSION = 1
DATASET_FILE = "dataset.json"
NO_LABEL = -1
DEFAULT_SHARD_BYTES = 256 * 2**20

_TAR_BLOCK_BYTES = 512
_INDEX_CACHE_BYTES = 256 * 2**20
_OPEN_SHARDS = 64


class ShardsExist(UserError):
    """The folder to be written already holds something."""


@dataclass(frozen=True)
class Sample:
    """One image as it goes into a shard.

    Attributes:
        image: the encoded file, kept as it is.
        extension: of the file, without the dot, e.g. ``png``.
        label: index into the dataset's labels, None without one.
    """

    image: bytes
    extension: str
    label: int | None = None


@dataclass(frozen=True)
class ShardEntry:
    """What dataset.json says of one shard; sizes in bytes, checksums SHA-256 in hexadecimal."""

    file: str
    index: str
    count: int
    bytes: int
    sha256: str
    index_sha256: str


@dataclass
class _Index:
    """Offset and size in bytes, label (−1 without) and extension number of each image, ``[samples]`` each."""

    offset: Any = field(default_factory=list)
    size: Any = field(default_factory=list)
    label: Any = field(default_factory=list)
    extension: Any = field(default_factory=list)


_INDEX_TYPES = {"offset": np.int64, "size": np.int32, "label": np.int32, "extension": np.uint8}


def _index_bytes(index: _Index) -> int:
    return sum(getattr(index, name).nbytes for name in _INDEX_TYPES)


def write_shards(
    samples: Iterable[Sample],
    out: Path,
    name: str,
    shape: tuple[int, int, int],
    labels: list[str],
    licence: str,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    label_sizes: Sequence[int] = (),
) -> None:
    """Write a dataset folder that is complete or absent; equal samples give equal bytes.

    Args:
        samples: in their order; the label of each is an index into ``labels``.
        out: the folder, which must not exist or be empty.
        name: of the dataset.
        shape: (C, H, W) of every image.
        labels: their names, empty for unlabelled data.
        licence: of the data, in words.
        shard_bytes: a shard ends before it would grow beyond this, but holds one sample at least.
        label_sizes: of several labels a sample, their numbers of categories; ``labels`` are then the names of all
            combinations, the last label's running fastest.

    Raises:
        ShardsExist: ``out`` already holds something.
        UserError: no samples, a label without a name, or the folder cannot be written.
    """
    out = Path(out)
    if label_sizes and math.prod(label_sizes) != len(labels):
        raise UserError(f"{out}: label_sizes={list(label_sizes)} make no {len(labels)} combinations: name each one")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ShardsExist(f"{out} already exists: remove it, or write the shards to another folder")
    aside = out.parent / f".{out.name}.{uuid.uuid4().hex}.partial"
    try:
        aside.mkdir(parents=True)
        entries, extensions = _write_tars(_reading(samples, out), aside, labels, shard_bytes, out)
        description = {
            "format": FORMAT,
            "version": VERSION,
            "name": name,
            "shape": list(shape),
            "count": sum(entry.count for entry in entries),
            "labels": labels,
            **({"label_sizes": list(label_sizes)} if label_sizes else {}),
            "licence": licence,
            "extensions": extensions,
            "shards": [asdict(entry) for entry in entries],
        }
        (aside / DATASET_FILE).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
        _synchronise(aside / DATASET_FILE)
        _synchronise(aside)
        aside.rename(out)
        _synchronise(out.parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise ShardsExist(
                f"{out} was written by another process meanwhile: remove it, or write to another folder"
            ) from error
        raise UserError(f"{out} cannot be written ({error.strerror}): name another folder or free space") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _reading(samples: Iterable[Sample], out: Path) -> Iterator[Sample]:
    try:
        yield from samples
    except OSError as error:
        # A file that cannot be read must not be reported as a folder that cannot be written.
        raise UserError(
            f"{error.filename or 'a sample'} cannot be read ({error.strerror}) while writing {out}: mend "
            "it or leave it out"
        ) from error


def _write_tars(
    samples: Iterator[Sample], folder: Path, labels: list[str], shard_bytes: int, out: Path
) -> tuple[list[ShardEntry], list[str]]:
    extensions: list[str] = []
    entries: list[ShardEntry] = []
    written = 0
    pending = next(samples, None)
    if pending is None:
        raise UserError(f"{out}: there are no samples to write: check where they are read from")
    while pending is not None:
        stem = f"shard-{len(entries):06d}"
        tar_path, index_path = folder / f"{stem}.tar", folder / f"{stem}.index.safetensors"
        index = _Index()
        with tar_path.open("wb") as stream, _tar_writer(stream) as writer:
            for sample in chain([pending], samples):
                pending = sample
                label = _checked_label(sample, written, labels, out)
                if index.size and writer.tarstream.offset + _tar_bytes(sample, label) > shard_bytes:
                    break
                _append(writer, sample, label, written, index, extensions)
                written += 1
            else:
                pending = None
        _synchronise(tar_path)
        arrays = {key: np.asarray(getattr(index, key), dtype) for key, dtype in _INDEX_TYPES.items()}
        save_file(arrays, index_path)
        _synchronise(index_path)
        entries.append(
            ShardEntry(
                file=tar_path.name,
                index=index_path.name,
                count=len(index.size),
                bytes=tar_path.stat().st_size,
                sha256=_sha256(tar_path),
                index_sha256=_sha256(index_path),
            )
        )
    return entries, extensions


def _tar_writer(stream: BinaryIO) -> Any:
    # Fixed owner and time: the bytes of a shard depend on its samples alone. A time that is not an integer
    # would cost every member an extended header.
    return webdataset.TarWriter(stream, user="latentscale", group="latentscale", mtime=0, encoder=False)


def _checked_label(sample: Sample, number: int, labels: list[str], out: Path) -> bytes | None:
    if sample.label is None:
        return None
    if not 0 <= sample.label < len(labels):
        raise UserError(
            f"{out}: sample {number} has label {sample.label}, but there are {len(labels)} label names: name them all"
        )
    return str(sample.label).encode("ascii")


def _member_bytes(size: int) -> int:
    return _TAR_BLOCK_BYTES + -(-size // _TAR_BLOCK_BYTES) * _TAR_BLOCK_BYTES


def _tar_bytes(sample: Sample, label: bytes | None) -> int:
    return _member_bytes(len(sample.image)) + (0 if label is None else _member_bytes(len(label)))


def _append(
    writer: Any, sample: Sample, label: bytes | None, number: int, index: _Index, extensions: list[str]
) -> None:
    extension = sample.extension.lower().lstrip(".")
    if extension not in extensions:
        extensions.append(extension)
    before = writer.tarstream.offset
    members = {"__key__": f"{number:09d}", extension: sample.image}
    if label is not None:
        members["cls"] = label
    writer.write(members)
    if writer.tarstream.offset - before != _tar_bytes(sample, label):
        raise RuntimeError("webdataset.TarWriter no longer writes one header a member: the index would be wrong")
    # TarWriter writes a sample's members in alphabetical order.
    label_first = label is not None and extension > "cls"
    index.offset.append(before + _TAR_BLOCK_BYTES + (_member_bytes(len(label or b"")) if label_first else 0))
    index.size.append(len(sample.image))
    index.label.append(NO_LABEL if sample.label is None else sample.label)
    index.extension.append(extensions.index(extension))


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _OpenShard:
    """A descriptor that closes with its last reference: a reader keeps it while the cache forgets it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class ShardedDataset:
    """A dataset folder opened for reading by (shard, member); thread-safe, and picklable to worker processes.

    Attributes:
        path: the folder.
        name: of the dataset.
        shape: (C, H, W) of every image.
        count: N, samples of all shards.
        shard_counts: samples of each shard, int64 ``[shards]``.
        labels: names of the labels, empty for unlabelled data.
        label_sizes: number of categories of each label; one label unless the names are combinations of several.
        licence: of the data, in words.
        fingerprint: SHA-256 over shape, labels and the checksums of all files: equal where the data are
            equal.
    """

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        self.path = path
        self.name: str = description["name"]
        channels, height, width = description["shape"]
        self.shape: tuple[int, int, int] = (channels, height, width)
        self.count: int = description["count"]
        self.labels: list[str] = description["labels"]
        sizes = description.get("label_sizes") or ([len(self.labels)] if self.labels else [])
        self.label_sizes: tuple[int, ...] = tuple(sizes)
        self.licence: str = description["licence"]
        self._extensions: list[str] = description["extensions"]
        self._shards = [ShardEntry(**entry) for entry in description["shards"]]
        self.shard_counts = np.array([shard.count for shard in self._shards], dtype=np.int64)
        content = [
            description["shape"],
            self.labels,
            *([sizes] if "label_sizes" in description else []),
            [[s.sha256, s.index_sha256] for s in self._shards],
        ]
        self.fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        self._indexes: BoundedCache[int, _Index] = BoundedCache(_INDEX_CACHE_BYTES, _index_bytes)
        self._open_shards: BoundedCache[int, _OpenShard] = BoundedCache(_OPEN_SHARDS)

    @classmethod
    def open(cls, path: Path | str) -> "ShardedDataset":
        """Open a folder that ``write_shards`` wrote, checking that its files are there in their sizes.

        Raises:
            UserError: naming the file that is missing, incomplete, inconsistent or of a newer format.
        """
        path = Path(path)
        dataset = cls(path, _read_description(path / DATASET_FILE))
        total = int(dataset.shard_counts.sum())
        if dataset.count != total or dataset.count < 1:
            raise UserError(
                f"{path / DATASET_FILE} says {dataset.count} samples, but its shards have {total}: write "
                "the shards again"
            )
        for shard in dataset._shards:
            for file, expected in ((shard.file, shard.bytes), (shard.index, None)):
                try:
                    size = (path / file).stat().st_size
                except OSError as error:
                    raise UserError(
                        f"{path / file} cannot be read ({error.strerror}): copy it again or write the shards again"
                    ) from error
                if expected is not None and size != expected:
                    raise UserError(
                        f"{path / file} has {size} bytes instead of {expected}: copy it again or write the shards again"
                    )
        return dataset

    def where(self, shard: int, member: int) -> str:
        """The file and member, as messages name them."""
        return f"{self.path / self._shards[shard].file} member {member}"

    def read(self, shard: int, member: int) -> tuple[bytes, str, int]:
        """The encoded image, its extension and its label (−1 without one).

        Raises:
            UserError: naming the file that is missing, truncated or inconsistent.
        """
        index = self._indexes.get(shard, lambda: self._load_index(shard))
        size = int(index.size[member])
        try:
            opened = self._open_shards.get(shard, lambda: _OpenShard(self.path / self._shards[shard].file))
            image = os.pread(opened.descriptor, size, int(index.offset[member]))
        except OSError as error:
            raise UserError(
                f"{self.where(shard, member)} cannot be read ({error.strerror}): copy the shard again"
            ) from error
        if len(image) != size:
            raise UserError(
                f"{self.where(shard, member)} is cut off after {len(image)} of {size} bytes: copy the shard again"
            )
        return image, self._extensions[index.extension[member]], int(index.label[member])

    def label_table(self) -> NDArray[np.int64]:
        """The categories that a stored label stands for, ``[labels, d_l]``, the last label's running fastest."""
        if not self.labels:
            return np.empty((0, 0), dtype=np.int64)
        return np.stack(np.unravel_index(np.arange(len(self.labels)), self.label_sizes), axis=1)

    def shard_labels(self, shard: int) -> NDArray[np.int64]:
        """The stored label of each member of a shard, −1 without one, ``[samples]``; reads its index."""
        labels: NDArray[np.int64] = self._load_index(shard).label.astype(np.int64)
        return labels

    def label_counts(self) -> NDArray[np.int64]:
        """How many samples carry each label, ``[labels]``; reads the indexes only."""
        counts = np.zeros(len(self.labels), dtype=np.int64)
        for shard in range(len(self._shards)):
            labels = self._load_index(shard).label
            counts += np.bincount(labels[labels >= 0], minlength=len(self.labels))
        return counts

    def verify(self) -> None:
        """Read everything and compare the checksums.

        Raises:
            UserError: naming the first file whose bytes are not those that were written.
        """
        for shard in self._shards:
            for file, expected in ((shard.file, shard.sha256), (shard.index, shard.index_sha256)):
                if _sha256(self.path / file) != expected:
                    raise UserError(
                        f"{self.path / file} is damaged (its SHA-256 differs): copy it again or write the shards again"
                    )

    def _load_index(self, shard: int) -> _Index:
        entry = self._shards[shard]
        path = self.path / entry.index
        try:
            arrays = load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} cannot be read ({error}): copy it again or write the shards again") from error
        index = _Index(**{name: arrays.get(name) for name in _INDEX_TYPES})
        consistent = set(arrays) == set(_INDEX_TYPES) and (
            all(array.shape == (entry.count,) for array in arrays.values())
            and int(index.size.min()) >= 0
            and int(index.offset.min()) >= 0
            and int((index.offset + index.size).max()) <= entry.bytes
            and int(index.extension.max()) < len(self._extensions)
            and int(index.label.max()) < max(len(self.labels), 0)
        )
        if not consistent:
            raise UserError(f"{path} does not belong to {entry.file}: copy both again or write the shards again")
        return index


def _read_description(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): name a folder written by latentscale.data.shards.write_shards"
        ) from error
    try:
        description = json.loads(text)
        if description["format"] != FORMAT:
            raise ValueError(f"format {description['format']!r}")
        version = int(description["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a description of shards ({error}):"
            " name a folder written by latentscale.data.shards.write_shards"
        ) from error
    if version > VERSION:
        raise UserError(
            f"{path} has format version {version}, this program reads up to {VERSION}: install a newer latentscale"
        )
    try:
        ShardedDataset(path.parent, description)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is incomplete ({error!r}): write the shards again") from error
    return dict(description)
