"""A dataset cut into others by copying its samples: folds of a cross-validation, fractions, or a test set."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscale.data.building.progress import folder_at_once
from latentscale.data.description import read_description
from latentscale.data.order import permutation
from latentscale.data.sample import Sample
from latentscale.data.shard_index import NO_LABEL, sha256_of_file
from latentscale.data.shard_writer import ShardWriter
from latentscale.data.shard_writing import Description, named
from latentscale.data.shards import ShardedDataset
from latentscale.data.storage import LocalFolder
from latentscale.data.stored_labels import stored_labels
from latentscale.data.tar_samples import DamagedShard, read_samples
from latentscale.data.verifying import dataset_folders
from latentscale.errors import UserError
from latentscale.latents.draws import Purpose

_COPIED = ("source", "label_names", "transform")
_REMEDY = "run latentscale shards verify, and copy what it names again"


@dataclass(frozen=True)
class Plan:
    """Which part of the samples goes where.

    Attributes:
        parts: how many groups each of the parts gets, relative to one another.
        splits: the split that each part becomes.
        seed: of the choice.
        stratified: whether each part gets its share of every label.
        said: what dataset.json tells of it.
    """

    parts: tuple[float, ...]
    splits: tuple[str, ...]
    seed: int
    stratified: bool
    said: Mapping[str, Any]


def folds(count: int, fold: int, seed: int, stratified: bool) -> Plan:
    """Fold ``fold`` of ``count`` is ``test``, the others ``train``.

    Raises:
        UserError: there is no such fold.
    """
    if count < 2 or not 0 <= fold < count:
        raise UserError(f"--fold {fold} does not exist of --folds {count}: at least 2 folds, numbered from 0")
    splits = tuple("test" if number == fold else "train" for number in range(count))
    return Plan((1.0,) * count, splits, seed, stratified, {"folds": count, "fold": fold})


def fractions(shares: Mapping[str, float], seed: int, stratified: bool) -> Plan:
    """Named splits by their shares.

    Raises:
        UserError: a share is not positive.
    """
    if len(shares) < 2 or not all(share > 0 for share in shares.values()):
        raise UserError("--fractions needs two positive numbers or more, such as train=0.9,test=0.1")
    return Plan(tuple(shares.values()), tuple(shares), seed, stratified, {"fractions": dict(shares)})


def split_dataset(
    path: Path,
    out: Path,
    plan: Plan | int,
    shard_bytes: int,
    seed: int = 0,
    stratified: bool = False,
    report: Callable[[str, int, int], None] = lambda *_: None,
) -> dict[str, int]:
    """Write ``out/SPLIT`` from the samples of a dataset, or of all splits in a folder taken together.

    The bytes depend on the samples and the plan alone; samples keep their order. Patches of one image stay together.
    Splits that hold the same samples (``--split all``) are taken once, or they would be trained on and tested. Every
    file's SHA-256 is checked, since the new files get sums of their own.

    Args:
        path: the dataset's folder, or one of train/, val/ and test/.
        out: the new folder; complete or absent.
        plan: the parts, or how many samples become ``test``.
        shard_bytes: at which a shard ends.
        seed, stratified: of a plan that is a number.
        report: told of progress in samples.

    Returns:
        The samples of each split.

    Raises:
        UserError: the datasets do not go together, a split would be empty, or a file is damaged.
    """
    out = named(out)
    opened = [_Source(folder) for folder in dataset_folders(path)]
    sources = list({source.dataset.fingerprint: source for source in reversed(opened)}.values())[::-1]
    first = sources[0]
    for other in sources[1:]:
        if any(first.description.get(k) != other.description.get(k) for k in ("shape", "labels", "label_sizes")):
            raise UserError(f"{first.folder} and {other.folder} differ in shape or labels: split one of them alone")
    labels = np.concatenate([source.labels() for source in sources])
    groups = _groups(sources, report)
    if isinstance(plan, int):
        if not 0 < plan < groups.max() + 1:
            raise UserError(f"--test {plan} is not allowed: there are {groups.max() + 1} samples or whole images")
        parts = (float(groups.max() + 1 - plan), float(plan))
        plan = Plan(parts, ("train", "test"), seed, stratified, {"test": plan})
    chosen = _assign(labels, groups, plan)
    names = sorted(set(plan.splits), key=lambda name: (name == "test", plan.splits.index(name)))
    for name in names:
        if not any(plan.splits[part] == name for part in np.unique(chosen)):
            raise UserError(f"split {name} would be empty: there are {groups.max() + 1} samples or whole images")
    said: dict[str, Any] = {
        **plan.said,
        "seed": plan.seed,
        "stratified": plan.stratified,
        "of": [source.dataset.fingerprint for source in sources],
    }
    return _write(sources, [plan.splits[part] for part in chosen], names, out, shard_bytes, said, report)


class _Source:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.description = read_description(LocalFolder(folder))
        self.dataset = ShardedDataset.open(folder)
        self._labels: NDArray[np.int64] | None = None
        self._checked: set[str] = set()

    def labels(self) -> NDArray[np.int64]:
        """As the indexes say."""
        if self._labels is None:
            for shard in self.description["shards"]:
                self._check(shard["index"], shard["index_sha256"])
            self._labels = stored_labels(self.folder, self.description)
            if len(self._labels) != self.dataset.count:
                raise UserError(
                    f"{self.folder} has {len(self._labels)} labels for {self.dataset.count} samples: {_REMEDY}"
                )
        return self._labels

    def samples(self) -> Iterator[Sample]:
        """As the shards hold them, which the indexes must agree with."""
        number, labels = 0, self.labels()
        for shard in self.description["shards"]:
            path = self.folder / shard["file"]
            self._check(shard["file"], shard["sha256"])
            end = number + shard["count"]
            try:
                for sample in read_samples(path):
                    if number == end:
                        raise DamagedShard(f"holds more than {shard['count']} samples")
                    found = NO_LABEL if sample.label is None else sample.label
                    if found != labels[number]:
                        place = number - end + shard["count"]
                        raise DamagedShard(f"member {place} has label {found}, but {labels[number]} in its index")
                    yield sample
                    number += 1
                if number != end:
                    raise DamagedShard(f"holds {end - number} samples fewer than {shard['count']}")
            except DamagedShard as error:
                raise UserError(f"{path} {error}: {_REMEDY}") from error
            except OSError as error:
                raise UserError(f"{path} cannot be read ({error.strerror}): {_REMEDY}") from error

    def _check(self, name: str, sha256: str) -> None:
        path = self.folder / name
        if name in self._checked:
            return
        try:
            same = sha256_of_file(path) == sha256
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): {_REMEDY}") from error
        if not same:
            raise UserError(f"{path} has another SHA-256 than was written: {_REMEDY}")
        self._checked.add(name)

    def has_patches(self) -> bool:
        origin = next(self.samples()).origin
        return origin is not None and "parent_height" in origin


def _groups(sources: Sequence[_Source], report: Callable[[str, int, int], None]) -> NDArray[np.int64]:
    """The number of each sample's group: itself, or the image that its patch was cut from."""
    total = sum(source.dataset.count for source in sources)
    if not any(source.has_patches() for source in sources):
        return np.arange(total)
    numbers: dict[str, int] = {}
    groups = np.empty(total, dtype=np.int64)
    samples = (sample for source in sources for sample in source.samples())
    for position, sample in enumerate(samples):
        name = str((sample.origin or {}).get("name", position))
        groups[position] = numbers.setdefault(name, len(numbers))
        if position % 1000 == 0:
            report("finding whole images", position, total)
    return groups


def _assign(labels: NDArray[np.int64], groups: NDArray[np.int64], plan: Plan) -> NDArray[np.int64]:
    """The part of each sample.

    The groups are walked in a random order, label by label if stratified, and each goes to the part that is furthest
    behind its share: so every part gets its share of the whole, and of each label, to within one.
    """
    count = int(groups.max()) + 1
    order = permutation(plan.seed, Purpose.SPLIT, 0, 0, count)
    if plan.stratified:
        label_of_group = np.full(count, -1, dtype=np.int64)
        label_of_group[groups[::-1]] = labels[::-1]
        order = order[np.argsort(label_of_group[order], kind="stable")]
    shares = np.array(plan.parts) / sum(plan.parts)
    given = np.zeros(len(shares))
    part_of_group = np.empty(count, dtype=np.int64)
    for walked, group in enumerate(order, 1):
        # rounded, so that ties are ties on every machine: the first part takes them
        part = int(np.argmax(np.round(shares * walked - given, 9)))
        given[part] += 1
        part_of_group[group] = part
    return part_of_group[groups]


def _write(
    sources: Sequence[_Source],
    splits: Sequence[str],
    names: Sequence[str],
    out: Path,
    shard_bytes: int,
    said: Mapping[str, Any],
    report: Callable[[str, int, int], None],
) -> dict[str, int]:
    description = sources[0].description
    with folder_at_once(out) as folder, ExitStack() as stack:
        writers = {}
        for name in names:
            (folder / name).mkdir()
            writers[name] = ShardWriter(folder / name, len(description["labels"]), shard_bytes, out)
            stack.callback(writers[name].close)
        samples = (sample for source in sources for sample in source.samples())
        for number, (sample, split) in enumerate(zip(samples, splits, strict=True)):
            writers[split].append(sample)
            if number % 1000 == 0:
                report("copying", number, len(splits))
        for name, writer in writers.items():
            writer.finish()
            Description(
                description["name"],
                sources[0].dataset.shape,
                description["labels"],
                description["licence"],
                description.get("label_sizes") or (),
                {**{key: description[key] for key in _COPIED if key in description}, "split": dict(said)},
            ).write(folder / name, writer.entries, writer.extensions)
        return {name: sum(entry.count for entry in writer.entries) for name, writer in writers.items()}
