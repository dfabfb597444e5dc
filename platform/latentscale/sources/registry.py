"""The sources by name, with the options that each uses."""

from collections.abc import Callable
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
from latentscale.sources.patches import list_imagenet_patches
from latentscale.sources.source_options import SourceOptions
from latentscale.sources.tars import list_tar
from latentscale.sources.zips import list_zip

_LABELLING = frozenset({"labels", "split", "splits"})
_CLUSTERS = frozenset({"count", "test_count", "means", "deviation", "probabilities"})
_PATCHES = frozenset({"patches", "patch_size", "patches_per_image"})


@dataclass(frozen=True)
class Source:
    """One layout: how it is listed, and the options it uses."""

    list: Callable[[Path | None, SourceOptions], Listing]
    uses: frozenset[str] = frozenset()


SOURCES = {
    "folder": Source(list_folder, _LABELLING | {"follow_symlinks"}),
    "zip": Source(list_zip, _LABELLING),
    "tar": Source(list_tar, _LABELLING),
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


def list_source(name: str, path: Path | None, options: SourceOptions) -> Listing:
    """List the images of a source.

    Raises:
        UserError: the source does not exist, does not use an option that was given, or cannot be read.
    """
    if name not in SOURCES:
        raise UserError(f"source {name} does not exist: use one of {', '.join(SOURCES)}")
    source = SOURCES[name]
    for option in options.given():
        # the seed also draws the order of any source
        if option != "seed" and option not in source.uses:
            users = ", ".join(other for other, candidate in SOURCES.items() if option in candidate.uses)
            raise UserError(f"--{option.replace('_', '-')} is not used by {name} (only by {users}): leave it out")
    options.check()
    if options.patches_per_image and (options.patches or ("grid" if name == "photos" else "random")) == "grid":
        raise UserError("--patches-per-image is for --patches random (a grid has as many patches as fit): leave it out")
    listing = source.list(path, options)
    if not any(listing.splits.values()):
        reason = f": {listing.problems[0]}" if listing.problems else ""
        raise UserError(f"{path} holds no images that {name} can use{reason}")
    return listing
