"""Everything in a dataset held against everything else: files, checksums, headers, indexes, labels and pixels."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file

from latentscale.data.building.parallel import ordered
from latentscale.data.description import read_description
from latentscale.data.sample_arrays import decode
from latentscale.data.shard_index import DATASET_FILE, INDEX_TYPES, NO_LABEL, ShardEntry, sha256_of_file
from latentscale.data.shard_writer import LABEL_MEMBER
from latentscale.data.storage import LocalFolder
from latentscale.data.tar_samples import DamagedShard, StoredSample, stored_samples
from latentscale.errors import UserError


@dataclass
class Verified:
    """What was looked at, and what is broken.

    Attributes:
        datasets, shards, samples: how many were looked at.
        broken: a line each, naming shard and member.
    """

    datasets: int = 0
    shards: int = 0
    samples: int = 0
    broken: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Shard:
    folder: Path
    entry: ShardEntry
    shape: tuple[int, ...]
    labels: int
    extensions: tuple[str, ...]


def dataset_folders(path: Path) -> list[Path]:
    """The folders with a dataset.json: the given one, or those right below it, train first.

    Raises:
        UserError: there is none.
    """
    if (path / DATASET_FILE).is_file():
        return [path]
    order = ("train", "val", "test")
    found = [folder for folder in path.iterdir() if (folder / DATASET_FILE).is_file()] if path.is_dir() else []
    if not found:
        raise UserError(f"{path} holds no {DATASET_FILE}: name a folder written by latentscale shards build")
    return sorted(found, key=lambda f: (order.index(f.name) if f.name in order else len(order), f.name))


def verify(path: Path, workers: int, report: Callable[[str, int, int], None] = lambda *_: None) -> Verified:
    """Check a dataset, or the datasets of all splits in a folder, and list all that is broken.

    Args:
        path: the folder.
        workers: processes; 0 checks in this one.
        report: told of progress in shards.

    Raises:
        UserError: there is no dataset, or a dataset.json says too little to go by.
    """
    verified, tasks = Verified(), []
    for folder in dataset_folders(path):
        description = read_description(LocalFolder(folder))
        shards, count = _shards(folder, description), description["count"]
        verified.datasets += 1
        tasks += shards
        if (total := sum(shard.entry.count for shard in shards)) != count:
            verified.broken.append(f"{folder / DATASET_FILE} says {count} samples, its shards have {total}")
        known = {name for shard in shards for name in (shard.entry.file, shard.entry.index)}
        for stray in sorted(file for file in folder.glob("shard-*") if file.name not in known):
            verified.broken.append(f"{stray} is no part of the dataset")
    report("shards", 0, len(tasks))
    for shard, (samples, broken) in zip(tasks, ordered(_check, iter(tasks), workers), strict=True):
        verified.shards += 1
        verified.samples += samples
        verified.broken += [f"{shard.folder / line}" for line in broken]
        report("shards", verified.shards, len(tasks))
    return verified


def _shards(folder: Path, description: dict[str, Any]) -> list[_Shard]:
    shape, labels = tuple(description["shape"]), len(description["labels"])
    extensions = tuple(description["extensions"])
    return [_Shard(folder, ShardEntry(**entry), shape, labels, extensions) for entry in description["shards"]]


def _check(shard: _Shard) -> tuple[int, list[str]]:
    """How many samples a shard's tar holds, and what is broken, each line beginning with a file's name."""
    entry, broken = shard.entry, []
    for name, sha256, size in ((entry.file, entry.sha256, entry.bytes), (entry.index, entry.index_sha256, None)):
        path = shard.folder / name
        try:
            found = path.stat().st_size
            if size is not None and found != size:
                broken.append(f"{name} has {found} bytes instead of {size}")
            elif sha256_of_file(path) != sha256:
                broken.append(f"{name} has another SHA-256 than was written")
        except OSError as error:
            broken.append(f"{name} cannot be read ({error.strerror})")
    index = _index(shard, broken)
    number, path = 0, shard.folder / entry.file
    try:
        with path.open("rb") as stream:
            for sample in stored_samples(path):
                broken += (
                    f"{entry.file} member {line}" for line in _check_sample(shard, sample, number, index, stream)
                )
                number += 1
        if number != entry.count:
            broken.append(f"{entry.file} holds {number} samples instead of {entry.count}")
    except DamagedShard as error:
        broken.append(f"{entry.file} {error}")
    except OSError as error:
        if not broken:
            broken.append(f"{entry.file} cannot be read ({error.strerror})")
    return number, broken


def _index(shard: _Shard, broken: list[str]) -> dict[str, Any] | None:
    name, count = shard.entry.index, shard.entry.count
    try:
        arrays = load_file(shard.folder / name)
    except OSError:
        return None  # has been said
    except SafetensorError as error:
        broken.append(f"{name} is no index ({error})")
        return None
    wrong = [key for key in INDEX_TYPES if key not in arrays or arrays[key].shape != (count,)]
    if wrong:
        broken.append(f"{name} has not {count} values of {', '.join(wrong)}")
        return None
    return arrays


def _check_sample(
    shard: _Shard, sample: StoredSample, number: int, index: dict[str, Any] | None, stream: Any
) -> Iterator[str]:
    try:
        extension, image = sample.image()
    except DamagedShard as error:
        yield str(error)
        return

    def content(name: str) -> bytes:
        member = sample.members[name]
        stream.seek(member.offset_data)
        return bytes(stream.read(member.size))

    label = NO_LABEL
    if LABEL_MEMBER in sample.members:
        text = content(LABEL_MEMBER)
        label = int(text) if text.isdigit() else NO_LABEL - 1
        if not 0 <= label < shard.labels:
            yield f"{sample.key}.{LABEL_MEMBER} is {text[:20]!r}, but there are {shard.labels} labels"
    if index is not None and number < shard.entry.count:
        listed = index["extension"][number]
        known = shard.extensions[listed] if listed < len(shard.extensions) else f"number {listed}"
        expected = (image.offset_data, image.size, label, extension)
        found = (*(int(index[name][number]) for name in ("offset", "size", "label")), known)
        if found != expected:
            names = ("offset", "size", "label", "extension")
            differ = ", ".join(
                f"{name} {theirs} instead of {ours}"
                for name, theirs, ours in zip(names, found, expected, strict=True)
                if theirs != ours
            )
            yield f"{sample.key}.{extension} stands otherwise in the index: {differ}"
    try:
        decode(content(extension), shard.shape, f"{sample.key}.{extension}")
    except UserError as error:
        yield str(error)
