"""Patches of images in any tree, such as random 32x32 patches of ImageNet (Ghosh et al. 2022, §4.3)."""

from pathlib import Path

from latentscale.sources.file_tree import require_folder
from latentscale.sources.image_folder import list_folder
from latentscale.sources.listing import Listing, Patches
from latentscale.sources.source_options import SourceOptions

DEFAULT_SIZE = 32
LICENCE = "ImageNet's terms of access, for non-commercial research, https://image-net.org/download"


def list_imagenet_patches(path: Path | None, options: SourceOptions) -> Listing:
    """List the images, and the patches to cut from them.

    Raises:
        UserError: the folder holds no images, or the requested labels are missing.
    """
    listing = list_folder(require_folder(path, "imagenet-patches"), options)
    listing.name = "imagenet-patches"
    listing.licence = LICENCE
    listing.channels = 3
    listing.patches = Patches(
        options.patches or "random", options.patch_size or DEFAULT_SIZE, options.patches_per_image or 1
    )
    return listing
