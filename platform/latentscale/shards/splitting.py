"""A dataset cut into others by copying its samples: folds of a cross-validation, fractions, or a test set."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentscale.errors import UserError
from latentscale.latents.draws import Purpose, permutation
from latentscale.shards.dataset_folders import dataset_folders
from latentscale.shards.dataset_json import read_description
from latentscale.shards.dataset_writer import Description, with_own_name
from latentscale.shards.partial_dataset import new_dataset_locked
from latentscale.shards.sample import Sample
from latentscale.shards.sequential_file import SequentialFile
from latentscale.shards.shard_format import NO_LABEL
from latentscale.shards.shard_writer import ShardWriter
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.shards.tar_samples import DamagedShard, read_samples
from latentscale.storage.dataset_files import StorageOptions, StoredFile
from latentscale.storage.remote import reason
from latentscale.wording import counted

_COPIED = ("source", "label_names", "transform")
_REMEDY = "run latentscale shards verify, and copy what it names again"


@dataclass(frozen=True)
class SplitPlan:
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


def folds(count: int, fold: int, seed: int, stratified: bool) -> SplitPlan:
    """Fold ``fold`` of ``count`` is ``test``, the others ``train``.

    Raises:
        UserError: there is no such fold.
    """
    if count < 2 or not 0 <= fold < count:
        raise UserError(f"--fold {fold} does not exist of --folds {count}: at least 2 folds, numbered from 0")
    splits = tuple("test" if number == fold else "train" for number in range(count))
    return SplitPlan((1.0,) * count, splits, seed, stratified, {"folds": count, "fold": fold})


def fractions(shares: Mapping[str, float], seed: int, stratified: bool) -> SplitPlan:
    """Named splits by their shares.

    Raises:
        UserError: a share is not positive.
    """
    if len(shares) < 2 or not all(share > 0 for share in shares.values()):
        raise UserError("--fractions needs two positive numbers or more, such as train=0.9,test=0.1")
    return SplitPlan(tuple(shares.values()), tuple(shares), seed, stratified, {"fractions": dict(shares)})


def split_dataset(
    path: Path | str,
    out: Path,
    plan: SplitPlan | int,
    shard_bytes: int,
    seed: int = 0,
    stratified: bool = False,
    report: Callable[[str, int, int], None] = lambda *_: None,
    options: StorageOptions | None = None,
) -> dict[str, int]:
    """Write ``out/SPLIT`` from the samples of a dataset, or of all splits in a folder taken together.

    The bytes depend on the samples and the plan alone; samples keep their order. Patches of one image stay together.
    Splits that hold the same samples (``--split all``) are taken once, or they would be trained on and tested. Every
    file's SHA-256 is checked, since the new files get sums of their own.

    Args:
        path: the dataset's folder, or one of train/, val/ and test/; or the URL of either, which is read shard by
            shard. No more than the indexes is kept, but for whole shards in the node's cache where a web server gives
            no ranges.
        out: the new folder; complete or absent.
        plan: the parts, or how many samples become ``test``.
        shard_bytes: at which a shard ends.
        seed, stratified: of a plan that is a number.
        report: told of progress in samples.
        options: for URLs: how files are fetched and kept.

    Returns:
        The samples of each split.

    Raises:
        UserError: the datasets do not go together, a split would be empty, or a file is damaged.
    """
    out = with_own_name(out)
    opened = [_Source(folder, options) for folder in dataset_folders(path, options)]
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
        plan = SplitPlan(parts, ("train", "test"), seed, stratified, {"test": plan})
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
    def __init__(self, folder: Path | str, options: StorageOptions | None) -> None:
        self.folder = folder
        self.dataset = ShardedDataset.open(folder, options)
        self.description = read_description(self.dataset.folder)
        self._labels: NDArray[np.int64] | None = None

    def labels(self) -> NDArray[np.int64]:
        """As the indexes say."""
        if self._labels is None:
            self._labels = self.dataset.stored_labels()
        return self._labels

    def samples(self) -> Generator[Sample]:
        """As the shards hold them, which the indexes must agree with."""
        number, labels = 0, self.labels()
        for shard, count in enumerate(self.dataset.shard_counts.tolist()):
            tar = self.dataset.tar(shard)
            location, end = self.dataset.folder.location(tar.name), number + count
            try:
                with self.dataset.folder.stream(tar) as stream:
                    file = SequentialFile(stream)
                    try:
                        for sample in read_samples(file):
                            if number == end:
                                raise DamagedShard(f"holds more than {counted(count, 'sample')}")
                            found = NO_LABEL if sample.label is None else sample.label
                            if found != labels[number]:
                                place = number - end + count
                                raise DamagedShard(
                                    f"member {place} has label {found}, but {labels[number]} in its index"
                                )
                            yield sample
                            number += 1
                        if number != end:
                            raise DamagedShard(f"holds {number - end + count} of {counted(count, 'sample')}")
                    except DamagedShard as error:
                        self._check(location, tar, file)
                        raise UserError(f"{location} {error}: {_REMEDY}") from error
                    self._check(location, tar, file)
            except OSError as error:
                raise UserError(f"{location} cannot be read ({error.strerror or reason(error)}): {_REMEDY}") from error

    def _check(self, location: str, tar: StoredFile, file: SequentialFile) -> None:
        """What was written from the shard's samples so far becomes a dataset only if this raises nothing."""
        _, sha256 = file.finish()
        if sha256 != tar.sha256:
            raise UserError(f"{location} has another SHA-256 than was written: {_REMEDY}")

    def has_patches(self) -> bool:
        with closing(self.samples()) as samples:
            origin = next(samples).origin
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


def _assign(labels: NDArray[np.int64], groups: NDArray[np.int64], plan: SplitPlan) -> NDArray[np.int64]:
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
    with new_dataset_locked(out) as folder, ExitStack() as stack:
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
