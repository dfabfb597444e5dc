"""Splitting a dataset into new ones by copying samples: cross-validation folds, fractions, or a test set."""

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
from latentscale.shell_command import shell_command
from latentscale.storage.dataset_files import DATASET_FILE, StorageOptions, StoredFile
from latentscale.storage.remote import reason
from latentscale.wording import counted

_COPIED = ("source", "label_names", "transform")


@dataclass(frozen=True)
class SplitPlan:
    """How samples are assigned to splits.

    Attributes:
        parts: the relative size of each part.
        splits: the split that each part belongs to.
        seed: seed of the random assignment.
        stratified: whether each part gets its share of every label.
        record: what dataset.json records about the split.
    """

    parts: tuple[float, ...]
    splits: tuple[str, ...]
    seed: int
    stratified: bool
    record: Mapping[str, Any]


def folds(count: int, fold: int, seed: int, stratified: bool) -> SplitPlan:
    """Plan a cross-validation: fold ``fold`` of ``count`` becomes ``test``, the others ``train``.

    Raises:
        UserError: ``count`` is below 2, or the fold does not exist.
    """
    if count < 2 or not 0 <= fold < count:
        raise UserError(f"--fold {fold} does not exist in --folds {count}: use at least 2 folds, numbered from 0")
    splits = tuple("test" if number == fold else "train" for number in range(count))
    return SplitPlan((1.0,) * count, splits, seed, stratified, {"folds": count, "fold": fold})


def fractions(shares: Mapping[str, float], seed: int, stratified: bool) -> SplitPlan:
    """Plan named splits by their shares.

    Raises:
        UserError: there are fewer than two shares, or one is not positive.
    """
    if len(shares) < 2 or not all(share > 0 for share in shares.values()):
        raise UserError("--fractions needs at least two positive numbers, such as train=0.9,test=0.1")
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
    """Write ``out/SPLIT`` from the samples of a dataset, or of all splits in a folder together.

    The output depends on the samples and the plan alone. Samples keep their order, and patches of one image stay in one
    split. Input splits with the same samples (``--split all``) are used once; otherwise a sample could be in both the
    training and the test set. Every input file's SHA-256 is checked, because the new files get new checksums.

    Args:
        path: the dataset's folder, or a folder with train/, val/ and test/; or the URL of either. Remote shards are
            streamed: only indexes are cached, and whole shards if the server supports no range requests.
        out: the output folder; after a failure it does not exist.
        plan: the plan, or the number of samples that become ``test``.
        shard_bytes: the maximum size of a shard.
        seed, stratified: see SplitPlan; used only if ``plan`` is a number.
        report: called with a label, the number of samples processed and the total.
        options: for URLs, how files are fetched and cached.

    Returns:
        The number of samples of each split.

    Raises:
        UserError: the input splits are incompatible, a split would be empty, or a file is damaged.
    """
    out = with_own_name(out)
    opened = [_Source(folder, options) for folder in dataset_folders(path, options)]
    sources = list({source.dataset.fingerprint: source for source in reversed(opened)}.values())[::-1]
    first = sources[0]
    for other in sources[1:]:
        if any(first.description.get(k) != other.description.get(k) for k in ("shape", "labels", "label_sizes")):
            raise UserError(f"{first.folder} and {other.folder} differ in shape or labels: split them separately")
    labels = np.concatenate([source.labels() for source in sources])
    groups = _groups(sources, report)
    if isinstance(plan, int):
        if not 0 < plan < groups.max() + 1:
            raise UserError(
                f"--test {plan} is not allowed: it must be positive and below {groups.max() + 1}, the number of samples"
                " or whole images"
            )
        parts = (float(groups.max() + 1 - plan), float(plan))
        plan = SplitPlan(parts, ("train", "test"), seed, stratified, {"test": plan})
    chosen = _assign(labels, groups, plan)
    names = sorted(set(plan.splits), key=lambda name: (name == "test", plan.splits.index(name)))
    for name in names:
        if not any(plan.splits[part] == name for part in np.unique(chosen)):
            raise UserError(f"split {name} would be empty: there are only {groups.max() + 1} samples or whole images")
    record: dict[str, Any] = {
        **plan.record,
        "seed": plan.seed,
        "stratified": plan.stratified,
        "of": [source.dataset.fingerprint for source in sources],
    }
    return _write(sources, [plan.splits[part] for part in chosen], names, out, shard_bytes, record, report)


class _Source:
    def __init__(self, folder: Path | str, options: StorageOptions | None) -> None:
        self.folder = folder
        self.dataset = ShardedDataset.open(folder, options)
        self.description = read_description(self.dataset.folder)
        self._labels: NDArray[np.int64] | None = None
        self._remedy = f"run {shell_command('shards', 'verify', folder)}, and copy again the files it names"

    def labels(self) -> NDArray[np.int64]:
        """Return the labels stored in the indexes, ``[N]``."""
        if self._labels is None:
            self._labels = self.dataset.stored_labels()
        return self._labels

    def samples(self) -> Generator[Sample]:
        """Yield the samples of all shards in order, checking them against the indexes."""
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
                                    f"member {place} has label {found}, but its index has {labels[number]}"
                                )
                            yield sample
                            number += 1
                        if number != end:
                            raise DamagedShard(f"holds {number - end + count} of {counted(count, 'sample')}")
                    except DamagedShard as error:
                        self._check(location, tar, file)
                        raise UserError(f"{location} {error}: {self._remedy}") from error
                    self._check(location, tar, file)
            except OSError as error:
                raise UserError(
                    f"{location} cannot be read ({error.strerror or reason(error)}): {self._remedy}"
                ) from error

    def _check(self, location: str, tar: StoredFile, file: SequentialFile) -> None:
        """Raise UserError if the shard's SHA-256 is wrong; the output is then discarded."""
        _, sha256 = file.finish()
        if sha256 != tar.sha256:
            raise UserError(f"{location} has the wrong SHA-256 (not the one in {DATASET_FILE}): {self._remedy}")

    def has_patches(self) -> bool:
        with closing(self.samples()) as samples:
            origin = next(samples).origin
        return origin is not None and "parent_height" in origin


def _groups(sources: Sequence[_Source], report: Callable[[str, int, int], None]) -> NDArray[np.int64]:
    """Return the group of each sample, ``[N]``: patches of one image form a group, any other sample is its own."""
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
    """Return the part of each sample, ``[N]``.

    Groups are taken in random order, label by label if stratified, and each goes to the part that is furthest behind
    its share. So every part gets its share of all groups, and of each label, to within one.
    """
    count = int(groups.max()) + 1
    order = permutation(plan.seed, Purpose.SPLIT, 0, 0, count)
    if plan.stratified:
        label_of_group = np.full(count, -1, dtype=np.int64)
        label_of_group[groups[::-1]] = labels[::-1]
        order = order[np.argsort(label_of_group[order], kind="stable")]
    shares = np.array(plan.parts) / sum(plan.parts)
    assigned = np.zeros(len(shares))
    part_of_group = np.empty(count, dtype=np.int64)
    for position, group in enumerate(order, 1):
        # rounded, so that ties are the same on every machine; the first part wins a tie
        part = int(np.argmax(np.round(shares * position - assigned, 9)))
        assigned[part] += 1
        part_of_group[group] = part
    return part_of_group[groups]


def _write(
    sources: Sequence[_Source],
    splits: Sequence[str],
    names: Sequence[str],
    out: Path,
    shard_bytes: int,
    record: Mapping[str, Any],
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
                {**{key: description[key] for key in _COPIED if key in description}, "split": dict(record)},
            ).write(folder / name, writer.entries, writer.extensions)
        return {name: sum(entry.count for entry in writer.entries) for name, writer in writers.items()}
