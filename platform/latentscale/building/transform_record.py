"""The description in dataset.json of how the images were transformed."""

from typing import Any

import numpy as np
import PIL

from latentscale.building.build_options import ImageOptions
from latentscale.sources.listing import Listing


def resizing_library(listing: Listing) -> dict[str, str]:
    """The library that determines the shards' bytes, with its version."""
    return {"pillow": PIL.__version__} if listing.generated is None else {"numpy": np.__version__}


def describe_transform(images: ImageOptions, listing: Listing) -> dict[str, Any]:
    """The transform's steps in order, and the library that performed them."""
    patches = listing.patches
    if listing.generated is not None:
        return {"steps": list(listing.generated.steps), **resizing_library(listing)}
    steps = ["turned upright as EXIF says", "8 bits a channel", "grey" if images.channels == 1 else "RGB"]
    if images.background is not None:
        steps.append(f"translucent pixels laid over {images.background}")
    if images.resolution:
        if images.fit == "crop":
            steps.append("centre crop to a square")
        steps.append(f"resized to {images.resolution}x{images.resolution}, Lanczos with antialiasing")
    if images.pad:
        steps.append(f"padded with black to {images.pad}x{images.pad}, centred")
    if patches is not None:
        kind = (
            "a grid of patches" if patches.layout == "grid" else f"{patches.count} random patches, seed {images.seed},"
        )
        steps.append(f"{kind} of {patches.size}x{patches.size}")
    written = {
        "auto": f"PNG of compression level {images.png_compression}; JPEG, PNG and WebP files whose pixels none of "
        "this changes are kept byte for byte",
        "png": f"PNG of compression level {images.png_compression}",
        "jpeg": f"JPEG of quality {images.quality}, 4:4:4",
        "webp": f"WebP of quality {images.quality}",
    }
    return {"steps": [*steps, written[images.format]], **resizing_library(listing)}
