"""Resize and pad images to one size, and cut patches from them."""

import hashlib

from PIL import Image

from latentscale.building.build_options import ImageOptions
from latentscale.decoding.image_conversion import centre_crop
from latentscale.latents.draws import Purpose, uniforms
from latentscale.sources.listing import Patches, UnreadableItem


def resize(image: Image.Image, options: ImageOptions, notes: list[str]) -> Image.Image:
    """Centre-crop or stretch to the resolution, with antialiased Lanczos resampling; then pad.

    Raises:
        UnreadableItem: the image is larger than ``options.pad``.
    """
    if (side := options.resolution) and image.size != (side, side):
        if options.fit == "crop":
            image = centre_crop(image, 1.0)
        if min(image.size) < side:
            notes.append("enlarged")
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    if options.pad:
        if max(image.size) > options.pad:
            raise UnreadableItem(f"is {image.height}x{image.width} pixels, larger than --pad {options.pad}")
        framed = Image.new(image.mode, (options.pad, options.pad))
        framed.paste(image, ((options.pad - image.width) // 2, (options.pad - image.height) // 2))
        image = framed
    return image


def cut_patches(image: Image.Image, patches: Patches, name: str, seed: int) -> list[tuple[Image.Image, dict[str, int]]]:
    """Cut patches; each comes with its left and top, and in a grid with its row and column.

    The places of random patches depend only on the seed and the image's name, not on the other images.

    Raises:
        UnreadableItem: the image is smaller than a patch.
    """
    size = patches.size
    rows, columns = image.height // size, image.width // size
    if not rows or not columns:
        raise UnreadableItem(f"is {image.height}x{image.width} pixels, smaller than a patch of {size}x{size}")
    places: list[dict[str, int]]
    if patches.layout == "grid":
        left, top = (image.width - columns * size) // 2, (image.height - rows * size) // 2
        places = [
            {"left": left + column * size, "top": top + row * size, "row": row, "column": column}
            for row in range(rows)
            for column in range(columns)
        ]
    else:
        key = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
        step, stream = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:16], "big")
        draws = uniforms(seed, Purpose.PATCHES, step, stream, 2 * patches.count).reshape(patches.count, 2)
        places = [
            {"left": int(x * (image.width - size + 1)), "top": int(y * (image.height - size + 1))} for x, y in draws
        ]
    return [
        (image.crop((place["left"], place["top"], place["left"] + size, place["top"] + size)), place)
        for place in places
    ]
