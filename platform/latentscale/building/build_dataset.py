"""Build shards from a source, split by split."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from latentscale.atomic import flush_to_disk
from latentscale.building.build_options import BuildOptions, ImageOptions
from latentscale.building.build_progress import BuildProgress, SplitProgress
from latentscale.building.damage_limit import check_damage
from latentscale.building.sample_preparation import ImagePreprocessor, PointEncoder
from latentscale.building.sample_sizes import SampleSizes
from latentscale.building.split_writer import SplitWriter
from latentscale.building.transform_record import describe_transform, resizing_library
from latentscale.containers.input_files import file_stamp
from latentscale.errors import UserError
from latentscale.latents.draws import Purpose, permutation
from latentscale.parallel_map import Report
from latentscale.shards.dataset_writer import Description, refuse_existing, with_own_name, write_error
from latentscale.shards.partial_dataset import discard_partial, partial_folder
from latentscale.sources.listing import Listing, Problem

_MAX_LISTED_LEFT_OUT = 1000


@dataclass
class Built:
    """The result of a build.

    Attributes:
        out: the dataset's folder.
        counts: number of samples in each split.
        bytes: size of all shards.
        notes: how many items each pixel conversion was applied to.
        skipped: the items that were left out, with the reason.
        resumed_samples: how many samples an earlier run had already written.
    """

    out: Path
    counts: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    skipped: list[Problem] = field(default_factory=list)
    resumed_samples: int = 0

    def add(self, split: str, done: SplitProgress, resumed_samples: int) -> None:
        """Add a finished split to the totals."""
        self.counts[split] = sum(entry.count for entry in done.entries)
        self.bytes += sum(entry.bytes for entry in done.entries)
        self.notes += done.notes
        self.resumed_samples += resumed_samples


def build_dataset(
    source: str,
    listing: Listing,
    out: Path,
    images: ImageOptions,
    options: BuildOptions,
    report: Report = lambda what, done, total: None,
) -> Built:
    """Write a listing's splits to ``out/SPLIT``; ``out`` is complete or absent.

    The written bytes depend only on the listing and the image options. After a killed run, the next run with the same
    arguments continues from its last finished shard.

    Args:
        source: name of the layout; recorded in dataset.json.
        listing: from :func:`latentscale.sources.registry.list_source`.
        out: output folder; must be absent or empty.
        images, options: how images and shards are written.
        report: progress callback, called after every chunk.

    Raises:
        ShardsExist: ``out`` is not empty.
        UserError: ``out`` is inside the source folder, or an option, an image or a folder is invalid; the message names
            it.
    """
    images.check()
    options.check()
    if listing.generated is not None:
        images.refuse_for_points(source)
    out = with_own_name(out)
    _refuse_within(out, listing.tree)
    refuse_existing(out)
    check_damage(listing.problems, options)
    listing = _in_order(listing, images, options)
    identity = _identity(source, listing, images, options)
    try:
        with partial_folder(out, options.restart) as folder, _unchanged(listing.read_in_place, out):
            progress = BuildProgress(folder, identity)
            shape: tuple[int, ...]
            preparation: ImagePreprocessor | PointEncoder
            if listing.generated is not None:
                shape, preparation = listing.generated.shape, PointEncoder(listing.reader)
            else:
                shape, required_size = SampleSizes(listing, images, options.processes).decide(progress, report)
                images = replace(images, channels=shape[0])
                preparation = ImagePreprocessor(listing.reader, images, listing.patches, required_size, options.origins)
            built = Built(out, skipped=list(listing.problems))
            for split, items in listing.splits.items():
                writing = SplitWriter(split, items, len(listing.labels.names), out, progress, options, built.skipped)
                done = writing.run(preparation, report)
                built.add(split, done, writing.resumed_samples)
                description = Description(
                    options.name or listing.name,
                    shape,
                    listing.labels.names,
                    options.licence or listing.licence,
                    listing.labels.sizes,
                    _description_extras(source, listing, images, done),
                )
                description.write(progress.data / split, done.entries, done.extensions)
            if listing.same_in_test:
                _copy_split(progress.data / "train", progress.data / "test")
                built.counts["test"] = built.counts["train"]
            flush_to_disk(progress.data)
            _refuse_changed(listing.read_in_place, out)
            progress.data.rename(out)
            flush_to_disk(out.parent)
            discard_partial(out)
    except OSError as error:
        remedy = "run the same command again: it continues after the last finished shard"
        raise write_error(out, error, remedy) from error
    return built


@contextmanager
def _unchanged(files: Mapping[Path, tuple[int, int]], out: Path) -> Iterator[None]:
    """An image that cannot be read may be a sign that its file was replaced: then this is said instead."""
    try:
        yield
    except UserError:
        _refuse_changed(files, out)
        raise


def _refuse_changed(files: Mapping[Path, tuple[int, int]], out: Path) -> None:
    """Refuse a build whose shards may mix images, or images and labels, of two states of a file.

    Raises:
        UserError: a file is another or gone; the unfinished build is kept, and not continued without ``--restart``.
    """
    for path, stamp in files.items():
        try:
            now = file_stamp(path)
        except OSError as error:
            raise UserError(
                f"{path} cannot be read any more ({error.strerror}): bring it back, and build again with --restart"
            ) from error
        if now != stamp:
            raise UserError(
                f"{path} changed while {out} was built from it, so images and labels may be mixed up: wait until it is "
                "complete, and build again with --restart"
            )


def _refuse_within(out: Path, tree: Path | None) -> None:
    # a later build from this tree would read the output of this one, such as its contact sheet, as images
    if tree is not None and Path(os.path.realpath(out)).is_relative_to(os.path.realpath(tree)):
        raise UserError(f"--out {out} is inside the source folder {tree}: choose an output folder outside it")


def _in_order(listing: Listing, images: ImageOptions, options: BuildOptions) -> Listing:
    if not (listing.sorted_by_label if options.shuffle is None else options.shuffle):
        return listing
    splits = {}
    for number, (split, items) in enumerate(listing.splits.items()):
        order = permutation(images.seed, Purpose.BUILD_ORDER, 0, number, len(items))
        splits[split] = [items[index] for index in order]
    return replace(listing, splits=splits)


def _identity(source: str, listing: Listing, images: ImageOptions, options: BuildOptions) -> dict[str, Any]:
    """Everything that the shards depend on except the images themselves, as it reads back from JSON."""
    identity = {
        "source": source,
        "name": options.name or listing.name,
        "licence": options.licence or listing.licence,
        "splits": list(listing.splits),
        "labels": asdict(listing.labels),
        "patches": None if listing.patches is None else asdict(listing.patches),
        **({} if listing.generated is None else {"generated": asdict(listing.generated)}),
        "images": asdict(images),
        "shuffle": listing.sorted_by_label if options.shuffle is None else options.shuffle,
        "shard_bytes": options.shard_bytes,
        "origins": options.origins,
        **resizing_library(listing),
    }
    return dict(json.loads(json.dumps(identity)))


def _description_extras(source: str, listing: Listing, images: ImageOptions, done: SplitProgress) -> dict[str, Any]:
    left_out = [*listing.problems, *(Problem(name, reason) for name, reason in done.skipped)]
    return {
        "source": source,
        **({"label_names": list(listing.labels.of)} if listing.labels.of else {}),
        "transform": describe_transform(images, listing),
        **({"converted": dict(sorted(done.notes.items()))} if done.notes else {}),
        **({"left_out": [str(problem) for problem in left_out[:_MAX_LISTED_LEFT_OUT]]} if left_out else {}),
    }


def _copy_split(split: Path, copy: Path) -> None:
    """Copy a split's files; hard links take no space where the file system supports them."""
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for file in split.iterdir():
        try:
            os.link(file, copy / file.name)
        except OSError:
            shutil.copyfile(file, copy / file.name)
            flush_to_disk(copy / file.name)
    flush_to_disk(copy)
