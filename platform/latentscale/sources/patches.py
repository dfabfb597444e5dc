"""Patches of the images of class folders, or of any folder: InvGAN trains on random 32x32 ones of ImageNet (I §4.3)."""

from pathlib import Path

from latentscale.sources.file_tree import require_folder
from latentscale.sources.image_folder import list_folder
from latentscale.sources.listing import Listing, Patches
from latentscale.sources.source_options import SourceOptions

DEFAULT_SIZE = 32
LICENCE = "ImageNet's terms of access, for non-commercial research, https://image-net.org/download"


def list_imagenet_patches(path: Path | None, options: SourceOptions) -> Listing:
    """The parent images, and how patches are cut out of them.

    Raises:
        UserError: no images, or the labels asked for cannot be had.
    """
    listing = list_folder(require_folder(path, "imagenet-patches"), options)
    listing.name = "imagenet-patches"
    listing.licence = LICENCE
    listing.channels = 3
    listing.patches = Patches(
        options.patches or "random", options.patch_size or DEFAULT_SIZE, options.patches_per_image or 1
    )
    return listing
