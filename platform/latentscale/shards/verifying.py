"""Verifying a dataset: files, checksums, tar headers, indexes, labels and pixels must all agree."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load

from latentscale.decoding.sample_arrays import decode
from latentscale.errors import UserError
from latentscale.parallel_map import ordered_map
from latentscale.shards.dataset_folders import dataset_folders
from latentscale.shards.dataset_json import read_description
from latentscale.shards.sequential_file import SequentialFile
from latentscale.shards.shard_format import INDEX_TYPES, NO_LABEL, SINCE_VERSION_2, ShardEntry
from latentscale.shards.shard_writer import LABEL_MEMBER
from latentscale.shards.tar_samples import DamagedShard, StoredSample, stored_samples
from latentscale.storage.checksums import crc32
from latentscale.storage.dataset_files import DATASET_FILE, StorageOptions, StoredFile
from latentscale.storage.local import LocalFolder
from latentscale.storage.remote import reason
from latentscale.storage.retrying import fetch_is_transient, is_local_disk_error
from latentscale.storage.uncached_remote import UncachedFolder
from latentscale.wording import counted

_LABEL_DIGITS = 10


@dataclass
class VerifyReport:
    """The result of a verification.

    Attributes:
        datasets, shards, samples: how many were checked.
        broken: one line per problem, naming shard and member.
    """

    datasets: int = 0
    shards: int = 0
    samples: int = 0
    broken: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Shard:
    folder: LocalFolder | UncachedFolder
    entry: ShardEntry
    shape: tuple[int, ...]
    labels: int
    extensions: tuple[str, ...]


def verify(
    path: Path | str,
    workers: int,
    report: Callable[[str, int, int], None] = lambda *_: None,
    options: StorageOptions | None = None,
) -> VerifyReport:
    """Check a dataset, or the datasets of all splits in a folder, and list every problem.

    Args:
        path: the folder or its URL. A remote dataset is read once, completely, without the node's cache.
        workers: number of worker processes; 0 checks in this process.
        report: called with a label, the number of shards checked and the total.
        options: how failing requests are retried; required for URLs.

    Raises:
        UserError: there is no dataset, a dataset.json is unusable, or a remote does not respond.
    """
    result, tasks = VerifyReport(), []
    for place in dataset_folders(path, options):
        folder: LocalFolder | UncachedFolder
        if isinstance(place, Path):
            folder = LocalFolder(place)
        else:
            assert options is not None
            folder = UncachedFolder(place, options)
        description = read_description(folder)
        shards, count = _shards(folder, description), description["count"]
        result.datasets += 1
        tasks += shards
        if (total := sum(shard.entry.count for shard in shards)) != count:
            result.broken.append(
                f"{folder.location(DATASET_FILE)} lists {counted(count, 'sample')}, but its shards have {total}"
            )
        if isinstance(place, Path):
            known = {name for shard in shards for name in (shard.entry.file, shard.entry.index)}
            for stray in sorted(file for file in place.glob("shard-*") if file.name not in known):
                result.broken.append(f"{stray} is not listed in {DATASET_FILE}")
    report("shards", 0, len(tasks))
    for samples, broken in ordered_map(_check, iter(tasks), workers):
        result.shards += 1
        result.samples += samples
        result.broken += broken
        report("shards", result.shards, len(tasks))
    return result


def _shards(folder: LocalFolder | UncachedFolder, description: dict[str, Any]) -> list[_Shard]:
    shape, labels = tuple(description["shape"]), len(description["labels"])
    extensions = tuple(description["extensions"])
    return [_Shard(folder, ShardEntry(**entry), shape, labels, extensions) for entry in description["shards"]]


def _check(shard: _Shard) -> tuple[int, list[str]]:
    """Check one shard; returns the number of samples in its tar and a line for each problem."""
    entry, folder = shard.entry, shard.folder
    index, index_errors = _index(shard)
    tar = folder.location(entry.file)
    number = 0
    sample_errors: list[str] = []
    try:
        with folder.stream(StoredFile(entry.file, entry.sha256, entry.bytes, entry.bytes)) as stream:
            file = SequentialFile(stream)
            try:
                for sample in stored_samples(file):
                    sample_errors += (f"{tar} member {line}" for line in _check_sample(shard, sample, number, index))
                    number += 1
                if number != entry.count:
                    sample_errors.append(f"{tar} holds {counted(number, 'sample')} instead of {entry.count}")
            except DamagedShard as error:
                sample_errors.append(f"{tar} {error}")
            size, sha256 = file.finish()
    except (OSError, UserError) as error:
        return number, [_read_failure(tar, error), *index_errors, *sample_errors]
    tar_errors = []
    if size != entry.bytes:
        tar_errors.append(f"{tar} has {size} bytes instead of {entry.bytes}")
    elif sha256 != entry.sha256:
        tar_errors.append(f"{tar} has the wrong SHA-256 (not the one in {DATASET_FILE})")
    return number, [*tar_errors, *index_errors, *sample_errors]


def _read_failure(location: str, error: Exception) -> str:
    """Describe why a file cannot be read.

    Raises:
        UserError: the file may be intact: the remote does not respond, or the local disk is full.
    """
    if isinstance(error, UserError):
        if fetch_is_transient(error):
            raise error
        return str(error)
    if is_local_disk_error(error):
        raise UserError(
            f"{tempfile.gettempdir()} has no room for {location} ({reason(error)}), which must be downloaded"
            " completely: set TMPDIR to a folder with more room, or lower --workers"
        ) from error
    strerror = error.strerror if isinstance(error, OSError) else None
    return f"{location} cannot be read ({strerror or reason(error)})"


def _index(shard: _Shard) -> tuple[dict[str, Any] | None, list[str]]:
    """Read a shard's index; returns its arrays (None if unusable) and a line for each problem."""
    location, count = shard.folder.location(shard.entry.index), shard.entry.count
    try:
        content = shard.folder.read_file(shard.entry.index)
    except (OSError, UserError) as error:
        return None, [_read_failure(location, error)]
    broken = []
    if hashlib.sha256(content).hexdigest() != shard.entry.index_sha256:
        broken.append(f"{location} has the wrong SHA-256 (not the one in {DATASET_FILE})")
    try:
        arrays = load(content)
    except SafetensorError as error:
        return None, [*broken, f"{location} is not an index ({error})"]
    wrong = [
        key for key in INDEX_TYPES if (arrays[key].shape != (count,) if key in arrays else key not in SINCE_VERSION_2)
    ]
    if wrong:
        return None, [*broken, f"{location} must have {counted(count, 'value')} of {', '.join(wrong)}"]
    return arrays, broken


def _check_sample(shard: _Shard, sample: StoredSample, number: int, index: dict[str, Any] | None) -> Iterator[str]:
    try:
        extension, image = sample.image()
    except DamagedShard as error:
        yield str(error)
        return

    label = NO_LABEL
    if LABEL_MEMBER in sample.members:
        text = sample.members[LABEL_MEMBER].content
        label = int(text) if text.isdigit() and len(text) <= _LABEL_DIGITS else NO_LABEL - 1
        if not 0 <= label < shard.labels:
            labels = counted(shard.labels, "label")
            yield f"{sample.key}.{LABEL_MEMBER} has label {text[:20]!r}, but the dataset has {labels}"
    if index is not None and number < shard.entry.count:
        listed = index["extension"][number]
        known = shard.extensions[listed] if listed < len(shard.extensions) else f"number {listed}"
        expected = {"offset": image.offset, "size": len(image.content), "label": label, "extension": extension}
        if "crc32" in index:
            expected["crc32"] = crc32(image.content)
        found = {name: known if name == "extension" else int(index[name][number]) for name in expected}
        if found != expected:
            differ = ", ".join(
                f"{name} {found[name]} instead of {actual}"
                for name, actual in expected.items()
                if found[name] != actual
            )
            yield f"{sample.key}.{extension} differs in the index: {differ}"
    try:
        decode(image.content, shard.shape, f"{sample.key}.{extension}")
    except UserError as error:
        yield str(error)
