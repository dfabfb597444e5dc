"""Write the shards of one split, continuing where an earlier run stopped."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from latentscale.building.build_options import BuildOptions
from latentscale.building.build_progress import BuildProgress, SplitProgress
from latentscale.building.damage_limit import check_damage
from latentscale.building.sample_preparation import PreprocessedItem
from latentscale.errors import UserError
from latentscale.parallel_map import CHUNK_ITEMS, Report, in_chunks, ordered_map
from latentscale.shards.shard_format import ShardEntry
from latentscale.shards.shard_writer import ShardWriter
from latentscale.sources.listing import Item, Problem


class _Position(NamedTuple):
    """The first sample that is not in a finished shard: index of its item, and of the sample within the item."""

    item: int
    sample: int


class SplitWriter:
    """Writes the samples of a split's items into its folder.

    Args:
        split: name of the split.
        items: the items, in the order in which their samples are written.
        labels: number of label names.
        out: the final folder of the dataset, for messages.
        progress: reads and records the progress.
        options: options of the build.
        skipped: items left out so far; new ones are appended.

    Attributes:
        resumed_samples: number of samples that an earlier run has written.
    """

    def __init__(
        self,
        split: str,
        items: Sequence[Item],
        labels: int,
        out: Path,
        progress: BuildProgress,
        options: BuildOptions,
        skipped: list[Problem],
    ) -> None:
        self._split, self._items, self._labels, self._out = split, items, labels, out
        self._progress, self._options, self._skipped = progress, options, skipped
        self._done = progress.of(split)
        self._unrecorded: list[tuple[str, str]] = []
        # over the items that were written or left out
        self._listing = hashlib.sha256()
        self.resumed_samples = sum(entry.count for entry in self._done.entries)

    def run(self, prepare: Callable[[Sequence[Item]], list[PreprocessedItem]], report: Report) -> SplitProgress:
        """Write the missing shards.

        Raises:
            UserError: more items are unreadable than allowed, none is readable, or they changed since the earlier run.
            OSError: the folder cannot be written.
        """
        done = self._done
        self._check_unchanged()
        self._skipped += [Problem(name, reason) for name, reason in done.skipped]
        check_damage(self._skipped, self._options)
        if not done.ended:
            folder = self._clean_folder()
            writer = ShardWriter(
                folder, self._labels, self._options.shard_bytes, self._out, done.entries, done.extensions
            )
            try:
                self._write(writer, prepare, report)
            finally:
                writer.close()
        if not done.entries:
            raise UserError(f"{self._out}: no image of {self._split} can be used; the first one: {self._skipped[0]}")
        return done

    def _check_unchanged(self) -> None:
        done = self._done
        for item in self._items[: done.item]:
            self._listing.update(item.identity())
        before = self._listing.copy()
        if done.sample and done.item < len(self._items):
            before.update(self._items[done.item].identity())
        same = not done.listing or before.hexdigest() == done.listing
        if not same or (done.ended and done.item != len(self._items)):
            raise UserError(
                f"the images of {self._split} have changed since the unfinished build of {self._out} began: "
                "discard that build with --restart"
            )

    def _clean_folder(self) -> Path:
        folder = self._progress.data / self._split
        folder.mkdir(exist_ok=True)
        finished = {name for entry in self._done.entries for name in (entry.file, entry.index)}
        for file in folder.iterdir():
            if file.name not in finished:
                file.unlink()
        return folder

    def _write(
        self, writer: ShardWriter, prepare: Callable[[Sequence[Item]], list[PreprocessedItem]], report: Report
    ) -> None:
        first, skip = self._done.item, self._done.sample
        number, total, notes = first, len(self._items), Counter(self._done.notes)
        report(self._split, first, total)
        for chunk in ordered_map(prepare, in_chunks(self._items, first, CHUNK_ITEMS), self._options.processes):
            for prepared in chunk:
                start = skip if number == first else 0
                if prepared.problem:
                    self._leave_out(self._items[number], prepared.problem)
                for sample_number, sample in enumerate(prepared.samples[start:], start):
                    if (finished := writer.append(sample)) is not None:
                        self._record(writer, finished, _Position(number, sample_number), notes)
                    if sample_number == 0:
                        # an item's notes are counted with the shard that holds its first sample
                        notes.update(prepared.notes)
                self._listing.update(self._items[number].identity())
                number += 1
            report(self._split, number, total)
        self._record(writer, writer.finish(), _Position(total, 0), notes, ended=True)

    def _leave_out(self, item: Item, reason: str) -> None:
        self._unrecorded.append((item.name, reason))
        self._skipped.append(Problem(item.name, reason))
        check_damage(self._skipped, self._options)

    def _record(
        self,
        writer: ShardWriter,
        finished: ShardEntry | None,
        position: _Position,
        notes: Counter[str],
        ended: bool = False,
    ) -> None:
        done, listing = self._done, self._listing.copy()
        if position.sample:
            listing.update(self._items[position.item].identity())
        done.entries, done.extensions = list(writer.entries), list(writer.extensions)
        done.item, done.sample = position
        done.listing, done.ended, done.notes = listing.hexdigest(), ended, Counter(notes)
        done.skipped += self._unrecorded
        self._progress.record(self._split, done, finished, self._unrecorded)
        self._unrecorded = []
