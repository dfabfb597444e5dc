"""A folder or archive of images becomes shards in the user's cache, when a run first reads it."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from latentscale.atomic import new_file
from latentscale.building.build_dataset import build_dataset
from latentscale.building.build_options import BuildOptions, ImageOptions
from latentscale.building.pixels import read_header
from latentscale.containers.file_kinds import COMPRESSED_TARS, compressed_remedy, pickle_refusal
from latentscale.containers.input_files import expand_braces, is_pattern, suffixes_without_images
from latentscale.data.first_use import node_lock
from latentscale.errors import UserError
from latentscale.regular_files import read_json
from latentscale.shards.dataset_writer import write_error
from latentscale.shards.shard_format import is_shard_file
from latentscale.sources.idx import is_idx_folder
from latentscale.sources.listing import Listing, UnreadableItem, digest
from latentscale.sources.registry import list_source
from latentscale.sources.source_options import SourceOptions
from latentscale.storage.dataset_files import DATASET_FILE
from latentscale.storage.user_cache import cache_folder
from latentscale.wording import counted

LARGEST_AUTOMATIC_SIDE = 256
KEPT_SIDES = frozenset({8, 16, 28, 32, 64, 128, 256, 512, 1024})
"""Sides of squares for which there are settings: images that all have one of them are not resized."""
SIZES_LOOKED_AT = 1000
_STEM_BYTES = 100
_SOURCE_OF_SUFFIX = {".zip": "zip", ".tar": "tar", ".parquet": "parquet", ".npz": "npz", ".npy": "npz"}

Report = Callable[[str, int, int], None]


@dataclass
class OwnShards:
    """Shards that were built of a user's images.

    Attributes:
        folder: of the dataset.
        notes: lines to print for the user, the same on every process.
        built: lines about the build, on the process that did it.
    """

    folder: Path
    notes: list[str] = field(default_factory=list)
    built: list[str] = field(default_factory=list)


def holds_shards(path: Path) -> bool:
    """Whether a folder holds shards, or a folder directly below it does."""
    if not path.is_dir():
        return False
    try:
        folders = [path, *(below for below in path.iterdir() if below.is_dir())]
        return any(_describes_shards(folder) or any(is_shard_file(file.name) for file in folder.iterdir())
                   for folder in folders)  # fmt: skip
    except OSError as error:
        raise UserError(f"data.path={path} cannot be listed ({error.strerror}): fix its permissions") from error


def build_own_images(
    path: Path,
    resolution: int,
    used: Path | None,
    report: Report,
    preset_side: int = 0,
    waits: Callable[[], None] = lambda: None,
) -> OwnShards:
    """Build a folder or archive of images into shards in the cache, unless that was done before.

    Processes of one node wait for the one that builds. A build that was killed continues.

    Args:
        path: of the images.
        resolution: side of the square images; 0 chooses it by the images.
        used: the shards that a run began with; they are used again if they were built of this path, even if its images
            have changed or gone.
        report: progress: what is done, how much of it, and the total.
        preset_side: the side that a preset takes, for images where ``resolution`` is 0; idx files keep theirs.
        waits: called before this process waits for another one that builds.

    Raises:
        UserError: there are no images, they cannot be used, or the cache cannot be written.
    """
    begun = _origin(used) if used is not None else None
    goes_on = used if begun is not None and begun["path"] == str(path.resolve()) else None
    source = ""
    try:
        source = _source(path)
        listing = list_source(source, path, SourceOptions())
    except UserError as error:
        if goes_on is not None:
            return OwnShards(goes_on, [f"{error}; this run goes on with the shards it began with, {goes_on}"])
        raise _refusal(path, source, error) if source else error from error
    content = _content(source, listing)
    if begun is not None and goes_on is not None:
        changed = f"{path} has changed since this run began: it goes on with what it began with, {goes_on}"
        return OwnShards(goes_on, [] if content == begun["content"] else [changed])
    side = resolution or (0 if source == "idx" else preset_side)
    key = hashlib.sha256(f"{content} {side}".encode()).hexdigest()[:16]
    folder = cache_folder() / "datasets" / f"{os.fsdecode(os.fsencode(path.resolve().stem)[:_STEM_BYTES])}-{key}"
    try:
        with node_lock(folder.with_name(f".{folder.name}.lock"), waits):
            if (folder / "train" / DATASET_FILE).is_file():
                return OwnShards(folder)
            return OwnShards(folder, built=_build(source, listing, path, folder, side, content, report))
    except UserError as error:
        raise _refusal(path, source, error) from error


def _content(source: str, listing: Listing) -> str:
    """What tells one content of a folder or archive from another: names, sizes, times and labels."""
    identity = hashlib.sha256(f"{source} {json.dumps(asdict(listing.labels))}\n".encode())
    for split in sorted(listing.splits):
        identity.update(f"{split} {digest(listing.splits[split])}\n".encode())
    return identity.hexdigest()


def _refusal(path: Path, source: str, error: UserError) -> UserError:
    if isinstance(error.__cause__, OSError):  # the disk, which other options do not help
        return UserError(f"data.path={path} cannot be built into shards: {error} (LATENTSCALE_CACHE moves the cache)")
    return UserError(
        f"data.path={path} cannot be built into shards ({error}): with other options, build it by latentscale"
        f" shards build {source}, and give the folder of --out as data.path"
    )


def _build(
    source: str, listing: Listing, path: Path, folder: Path, resolution: int, content: str, report: Report
) -> list[str]:
    side = resolution or (0 if listing.generated or source == "idx" else _automatic_side(listing))
    try:
        # before the shards are: a run that they serve may always know what they were built of
        with new_file(_origin_file(folder)) as file:
            origin = {"path": str(path.resolve()), "content": content, "resolution": side}
            file.write_text(json.dumps(origin, indent=1) + "\n")
    except OSError as error:
        raise write_error(folder, error) from error
    built = build_dataset(source, listing, folder, ImageOptions(resolution=side), BuildOptions(), report)
    count = ", ".join(f"{counted(n, 'image')} in {split}" for split, n in built.counts.items())
    resized = f", each {side}x{side} pixels (data.resolution)" if side else ""
    return [*listing.notes, f"{path} was built into {folder}: {count}{resized}"]


def _automatic_side(listing: Listing) -> int:
    """The largest power of two, from 8 to 256, that nine in ten images reach with their shorter sides.

    Squares that all have a side for which there are settings keep it.
    """
    items = [item for split in listing.splits.values() for item in split]
    sizes = []
    for item in items[:: max(1, len(items) // SIZES_LOOKED_AT)]:
        try:
            header = read_header(listing.reader.read(item))
        except (OSError, UnreadableItem):
            continue  # the build names it
        sizes.append((header.height, header.width))
    if not sizes:
        return 0
    height, width = sizes[0]
    if set(sizes) == {(height, width)} and height == width and height in KEPT_SIDES:
        return height
    shorter = sorted(min(size) for size in sizes)
    reached = shorter[len(shorter) // 10]
    return max(8, min(LARGEST_AUTOMATIC_SIDE, 1 << (reached.bit_length() - 1)))


def _source(path: Path) -> str:
    if path.is_dir():
        return "idx" if is_idx_folder(path) else _source_of_files(path)
    suffix = path.suffix.lower()
    if suffix in _SOURCE_OF_SUFFIX and (path.is_file() or is_pattern(path)):
        return _SOURCE_OF_SUFFIX[suffix]
    if path.name.lower().endswith(COMPRESSED_TARS) and (path.is_file() or is_pattern(path)):
        raise UserError(
            f"data.path={path} is compressed, so that its images cannot be read at random: decompress it first, such "
            f"as with {compressed_remedy(expand_braces(path)[0])}"
        )
    if path.is_file() and (refusal := pickle_refusal(path)):
        raise UserError(f"data.path={path} is {refusal}")
    what = f"is not a folder, a {', a '.join(_SOURCE_OF_SUFFIX)}" if path.exists() else "does not exist"
    raise UserError(f"data.path={path} {what}: name a folder of shards or of images, or an archive of images")


def _source_of_files(folder: Path) -> str:
    """The source of a folder that holds no images but files of images, such as tars; else ``folder``."""
    if any(file.suffix.lower() == ".tar" for file in folder.iterdir()):
        return "tar"
    sources = {_SOURCE_OF_SUFFIX[suffix] for suffix in suffixes_without_images(folder) if suffix in _SOURCE_OF_SUFFIX}
    sources.discard("zip")
    if len(sources) > 1:
        raise UserError(
            f"data.path={folder} holds files for {' and '.join(sorted(sources))}: name the files of one kind, or their "
            "folder"
        )
    return sources.pop() if sources else "folder"


def _describes_shards(folder: Path) -> bool:
    """Whether a folder holds our dataset.json; StyleGAN's dataset tool gives its labels the same name."""
    try:
        content = read_json(folder / DATASET_FILE)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True  # whoever opens it names the damage
    return isinstance(content, dict) and "shards" in content


def _origin_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.source.json")


def _origin(folder: Path) -> dict[str, str] | None:
    """What a folder of the cache was built of; None for any other folder, and for one that has gone."""
    try:
        content = read_json(_origin_file(folder))
    except (OSError, ValueError):
        return None
    is_whole = isinstance(content, dict) and {"path", "content"} <= content.keys()
    return content if is_whole and (folder / "train" / DATASET_FILE).is_file() else None
