"""The sources by name, with the options that each uses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentscale.errors import UserError
from latentscale.sources.afhq import list_afhq
from latentscale.sources.bundled import list_digits, list_photos
from latentscale.sources.celeba import list_celeba
from latentscale.sources.cluster_source import list_clusters
from latentscale.sources.ffhq import list_ffhq
from latentscale.sources.idx import list_idx
from latentscale.sources.image_folder import list_folder
from latentscale.sources.listing import Listing
from latentscale.sources.mnist_c import list_mnist_c
from latentscale.sources.npz import list_npz
from latentscale.sources.parquet import list_parquet
from latentscale.sources.patches import list_imagenet_patches
from latentscale.sources.source_options import SourceOptions
from latentscale.sources.tars import list_tars
from latentscale.sources.zips import list_zip
from latentscale.wording import shown

_LABELLING = frozenset({"labels", "split", "splits"})
_CLUSTERS = frozenset({"count", "test_count", "means", "deviation", "probabilities"})
_FIELDS = frozenset({"label_field", "image_field"})
_PATCHES = frozenset({"patches", "patch_size", "patches_per_image"})


@dataclass(frozen=True)
class Source:
    """One layout: how it is listed, and the options it uses."""

    list: Callable[[Path | None, SourceOptions], Listing]
    uses: frozenset[str] = frozenset()

    def list_paths(self, name: str, paths: Sequence[Path], options: SourceOptions) -> Listing:
        """List a source of at most one path."""
        if len(paths) > 1:
            raise UserError(
                f"{name} reads one PATH, got {len(paths)}, from {paths[0]} to {paths[-1]}: name the folder or archive "
                f"that holds the images (quote names with * or spaces); {' and '.join(SEVERAL)} take several files"
            )
        return self.list(paths[0] if paths else None, options)


@dataclass(frozen=True)
class SourceOfFiles:
    """A layout of one or several files: how they are listed, and the options it uses."""

    list: Callable[[Sequence[Path], SourceOptions], Listing]
    uses: frozenset[str] = frozenset()

    def list_paths(self, name: str, paths: Sequence[Path], options: SourceOptions) -> Listing:
        """List a source of any number of files."""
        return self.list(paths, options)


SOURCES: dict[str, Source | SourceOfFiles] = {
    "folder": Source(list_folder, _LABELLING | {"follow_symlinks"}),
    "zip": Source(list_zip, _LABELLING),
    "tar": SourceOfFiles(list_tars, _LABELLING | _FIELDS | {"follow_symlinks"}),
    "parquet": SourceOfFiles(list_parquet, _FIELDS | {"labels", "split", "splits", "follow_symlinks"}),
    "npz": SourceOfFiles(list_npz, _FIELDS | {"labels", "layout", "split", "splits", "follow_symlinks"}),
    "ffhq": Source(list_ffhq, frozenset({"split", "follow_symlinks"})),
    "afhq": Source(list_afhq, frozenset({"split", "follow_symlinks"})),
    "celeba": Source(list_celeba, frozenset({"attributes", "split", "follow_symlinks"})),
    "imagenet-patches": Source(list_imagenet_patches, _LABELLING | _PATCHES | {"follow_symlinks"}),
    "idx": Source(list_idx, frozenset({"labels", "split", "subset"})),
    "mnist-c": Source(list_mnist_c, frozenset({"originals", "corruptions"})),
    "digits": Source(list_digits, frozenset({"split"})),
    "photos": Source(list_photos, _PATCHES | {"split"}),
    "clusters": Source(list_clusters, _CLUSTERS | {"split"}),
}
SEVERAL = tuple(name for name, source in SOURCES.items() if isinstance(source, SourceOfFiles))
"""The sources that take several files."""


def list_source(name: str, path: Path | Sequence[Path] | None, options: SourceOptions) -> Listing:
    """List the images of a source.

    Args:
        name: of the source.
        path: what it is read from; several files for some sources.
        options: how it is read.

    Raises:
        UserError: the source does not exist, does not use an option that was given, or cannot be read.
    """
    if name not in SOURCES:
        raise UserError(f"source {shown(name)} does not exist: use one of {', '.join(SOURCES)}")
    source = SOURCES[name]
    for option in options.given():
        # the seed also draws the order of any source
        if option != "seed" and option not in source.uses:
            users = ", ".join(other for other, candidate in SOURCES.items() if option in candidate.uses)
            raise UserError(f"--{option.replace('_', '-')} is not used by {name} (only by {users}): leave it out")
    options.check()
    if options.patches_per_image and (options.patches or ("grid" if name == "photos" else "random")) == "grid":
        raise UserError("--patches-per-image is for --patches random (a grid has as many patches as fit): leave it out")
    paths = [] if path is None else [path] if isinstance(path, Path) else list(path)
    listing = source.list_paths(name, paths, options)
    if not any(listing.splits.values()):
        reason = f": {listing.problems[0]}" if listing.problems else ""
        raise UserError(f"{paths[0] if len(paths) == 1 else name} holds no images that {name} can use{reason}")
    return listing
