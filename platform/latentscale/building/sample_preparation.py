"""Turn items into samples, in worker processes."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from latentscale.building.build_options import ImageOptions
from latentscale.building.pixels import Header, Pixels, read_header, upright_pixels
from latentscale.building.resizing import cut_patches, resize
from latentscale.decoding.points import POINT_EXTENSION, encode_point
from latentscale.errors import UserError
from latentscale.shards.sample import Sample
from latentscale.sources.listing import Item, Patches, Reader, UnreadableItem, display_name

_EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}


@dataclass
class PreprocessedItem:
    """The samples of an item, or the reason why it cannot be used.

    Attributes:
        samples: one, or one per patch.
        notes: the pixel conversions that were applied; the same text for every item, so that they can be counted.
        problem: why there are no samples; empty if there are.
    """

    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str = ""


@dataclass(frozen=True)
class ImagePreprocessor:
    """Turns items into samples; picklable, with the same result in every process.

    Attributes:
        reader: reads the items.
        options: the image options, with ``channels`` set to 1 or 3.
        patches: the patches to cut from every image.
        size: (H, W) that every image must have; None if the options already fix it.
        origins: whether samples record their origin.
    """

    reader: Reader
    options: ImageOptions
    patches: Patches | None
    size: tuple[int, int] | None
    origins: bool

    def __call__(self, items: Sequence[Item]) -> list[PreprocessedItem]:
        """The samples of each item.

        Raises:
            UserError: the process ran out of memory. This is not a damaged item that --on-error could leave out.
        """
        return [self._prepare(item) for item in items]

    def _prepare(self, item: Item) -> PreprocessedItem:
        try:
            content = self.reader.read(item)
            pixels = upright_pixels(content, self.options.channels, self.options.background)
            image = resize(pixels.image, self.options, pixels.notes)
            if self.patches is not None:
                cuts = cut_patches(image, self.patches, item.name, self.options.seed)
                size: dict[str, int] = {"parent_height": image.height, "parent_width": image.width}
                samples = [self._encoded(patch, item, {**size, **place}) for patch, place in cuts]
            elif self.size is not None and (image.height, image.width) != self.size:
                raise UnreadableItem(
                    f"is {image.height}x{image.width} pixels, not {self.size[0]}x{self.size[1]} (use --resolution)"
                )
            elif isinstance(content, bytes) and self._can_keep_file(pixels, image):
                samples = [Sample(content, _EXTENSIONS[pixels.file_format], item.label, self._origin(item, {}))]
            else:
                samples = [self._encoded(image, item, {})]
        except OSError as error:
            return PreprocessedItem(problem=f"cannot be read ({error.strerror or error})")
        except UnreadableItem as error:
            return PreprocessedItem(problem=str(error))
        except MemoryError as error:
            raise UserError(
                f"ran out of memory at {display_name(item.name)}: run the command again with fewer --workers, or with "
                "a smaller --resolution, --pad or --patches-per-image"
            ) from error
        return PreprocessedItem(samples, pixels.notes)

    def _can_keep_file(self, pixels: Pixels, image: Image.Image) -> bool:
        wanted = self.options.format.upper()
        return image is pixels.image and bool(pixels.file_format) and wanted in ("AUTO", pixels.file_format)

    def _encoded(self, image: Image.Image, item: Item, more: dict[str, Any]) -> Sample:
        options = self.options
        target = "PNG" if options.format == "auto" else options.format.upper()
        settings: dict[str, dict[str, Any]] = {
            "PNG": {"compress_level": options.png_compression},
            "JPEG": {"quality": options.quality, "subsampling": "4:4:4"},
            "WEBP": {"quality": options.quality},
        }
        # otherwise Pillow writes the metadata of the original too
        image.info = {}
        buffer = io.BytesIO()
        image.save(buffer, format=target, **settings[target])
        return Sample(buffer.getvalue(), _EXTENSIONS[target], item.label, self._origin(item, more))

    def _origin(self, item: Item, more: dict[str, Any]) -> dict[str, Any] | None:
        return {"name": item.name, **dict(item.origin), **more} if self.origins else None


@dataclass(frozen=True)
class PointEncoder:
    """Turns points into samples; points record no origin.

    Attributes:
        reader: reads the items.
    """

    reader: Reader

    def __call__(self, items: Sequence[Item]) -> list[PreprocessedItem]:
        """The sample of each item."""
        return [
            PreprocessedItem([Sample(encode_point(np.asarray(self.reader.read(item))), POINT_EXTENSION, item.label)])
            for item in items
        ]


@dataclass(frozen=True)
class HeaderReader:
    """Reads the headers of items; None for an item that cannot be read."""

    reader: Reader

    def __call__(self, items: Sequence[Item]) -> list[Header | None]:
        """The header of each item."""
        headers: list[Header | None] = []
        for item in items:
            try:
                headers.append(read_header(self.reader.read(item)))
            except (OSError, UnreadableItem):
                headers.append(None)
        return headers
