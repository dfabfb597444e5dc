"""A folder or archive of images becomes shards in the user's cache, when a run first reads it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from latentscale.atomic import new_file
from latentscale.building.build_dataset import build_dataset
from latentscale.building.build_options import BuildOptions, ImageOptions
from latentscale.building.pixels import read_header
from latentscale.data.first_use import node_lock
from latentscale.errors import UserError
from latentscale.shards.shard_format import is_shard_file
from latentscale.sources.idx import is_idx_folder
from latentscale.sources.listing import Listing, UnreadableItem, digest
from latentscale.sources.registry import list_source
from latentscale.sources.source_options import SourceOptions
from latentscale.storage.dataset_files import DATASET_FILE
from latentscale.storage.user_cache import cache_folder
from latentscale.wording import counted

LARGEST_AUTOMATIC_SIDE = 256
SIZES_LOOKED_AT = 1000
_SOURCE_OF_SUFFIX = {".zip": "zip", ".tar": "tar"}

Report = Callable[[str, int, int], None]


@dataclass
class OwnShards:
    """Shards that were built of a user's images.

    Attributes:
        folder: of the dataset.
        notes: lines to print for the user.
    """

    folder: Path
    notes: list[str] = field(default_factory=list)


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


def build_own_images(path: Path, resolution: int, used: Path | None, report: Report) -> OwnShards:
    """Build a folder or archive of images into shards in the cache, unless that was done before.

    Processes of one node wait for the one that builds. A build that was killed continues.

    Args:
        path: of the images.
        resolution: side of the square images; 0 chooses it by the images.
        used: the shards that a run began with; they are used again if they were built of this path.
        report: progress: what is done, how much of it, and the total.

    Raises:
        UserError: there are no images, they cannot be used, or the cache cannot be written.
    """
    source = _source(path)
    try:
        listing = list_source(source, path, SourceOptions())
        identity = hashlib.sha256(f"{source} {resolution}\n".encode())
        for split in sorted(listing.splits):
            identity.update(f"{split} {digest(listing.splits[split])}\n".encode())
        key = identity.hexdigest()[:16]
        if used is not None and (begun := _origin(used)) and begun["path"] == str(path.resolve()):
            changed = [] if begun["key"] == key else [
                f"{path} has changed since this run began: it goes on with what it began with, {used}"
            ]  # fmt: skip
            return OwnShards(used, changed)
        folder = cache_folder() / "datasets" / f"{path.resolve().stem}-{key}"
        with node_lock(folder.with_name(f".{folder.name}.lock")):
            if (folder / "train" / DATASET_FILE).is_file():
                return OwnShards(folder)
            return OwnShards(folder, _build(source, listing, path, folder, resolution, key, report))
    except UserError as error:
        raise UserError(
            f"data.path={path} cannot be built into shards ({error}): with other options, build it by latentscale"
            f" shards build {source}, and give the folder of --out as data.path"
        ) from error


def _build(
    source: str, listing: Listing, path: Path, folder: Path, resolution: int, key: str, report: Report
) -> list[str]:
    side = 0 if listing.generated or source == "idx" else resolution or _automatic_side(listing)
    built = build_dataset(source, listing, folder, ImageOptions(resolution=side), BuildOptions(), report)
    origin = {"path": str(path.resolve()), "key": key, "resolution": side}
    with new_file(_origin_file(folder)) as file:
        file.write_text(json.dumps(origin, indent=1) + "\n")
    count = ", ".join(f"{counted(n, 'image')} in {split}" for split, n in built.counts.items())
    resized = f", each {side}x{side} pixels (data.resolution)" if side else ""
    return [*listing.notes, f"{path} was built into {folder}: {count}{resized}"]


def _automatic_side(listing: Listing) -> int:
    """The largest power of two, from 8 to 256, that nine in ten images reach with their shorter sides."""
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
    if set(sizes) == {(height, width)} and height == width and height & (height - 1) == 0:
        return height
    shorter = sorted(min(size) for size in sizes)
    reached = shorter[len(shorter) // 10]
    return max(8, min(LARGEST_AUTOMATIC_SIDE, 1 << (reached.bit_length() - 1)))


def _source(path: Path) -> str:
    if path.is_dir():
        if is_idx_folder(path):
            return "idx"
        return "tar" if any(file.suffix == ".tar" for file in path.iterdir()) else "folder"
    if path.is_file() and path.suffix.lower() in _SOURCE_OF_SUFFIX:
        return _SOURCE_OF_SUFFIX[path.suffix.lower()]
    what = "is not a folder, a .zip or a .tar" if path.exists() else "does not exist"
    raise UserError(f"data.path={path} {what}: name a folder of shards or of images, or an archive of images")


def _describes_shards(folder: Path) -> bool:
    """Whether a folder holds our dataset.json; StyleGAN's dataset tool gives its labels the same name."""
    try:
        content = json.loads((folder / DATASET_FILE).read_bytes())
    except FileNotFoundError:
        return False
    except ValueError:
        return True  # whoever opens it names the damage
    return isinstance(content, dict) and "shards" in content


def _origin_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.source.json")


def _origin(folder: Path) -> dict[str, str] | None:
    """What a folder of the cache was built of; None for any other folder, and for one that has gone."""
    try:
        content = json.loads(_origin_file(folder).read_bytes())
    except (OSError, ValueError):
        return None
    is_whole = isinstance(content, dict) and {"path", "key"} <= content.keys()
    return content if is_whole and (folder / "train" / DATASET_FILE).is_file() else None
