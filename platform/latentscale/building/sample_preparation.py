"""From an item to its samples: what worker processes do."""

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
    """What became of an item: its samples, or why it cannot be taken.

    Attributes:
        samples: one, or one for each patch.
        notes: what was done to the pixels, in words that many items share.
        problem: why there are no samples.
    """

    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str = ""


@dataclass(frozen=True)
class ImagePreprocessor:
    """Makes samples of items; picklable, and the same in every process.

    Attributes:
        reader: of the items.
        options: of the images, with ``channels`` decided.
        patches: what is cut out of every image.
        size: (H, W) that every sample must come to; None where no sample can come to another.
        origins: whether samples tell where they come from.
    """

    reader: Reader
    options: ImageOptions
    patches: Patches | None
    size: tuple[int, int] | None
    origins: bool

    def __call__(self, items: Sequence[Item]) -> list[PreprocessedItem]:
        """The samples of each item.

        Raises:
            UserError: memory does not suffice, which is no fault of the item that --on-error could leave out.
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
                    f"is {image.height}x{image.width} pixels, not {self.size[0]}x{self.size[1]} (--resolution resizes)"
                )
            elif isinstance(content, bytes) and self._keeps(pixels, image):
                samples = [Sample(content, _EXTENSIONS[pixels.file_format], item.label, self._origin(item, {}))]
            else:
                samples = [self._encoded(image, item, {})]
        except OSError as error:
            return PreprocessedItem(problem=f"cannot be read ({error.strerror or error})")
        except UnreadableItem as error:
            return PreprocessedItem(problem=str(error))
        except MemoryError as error:
            raise UserError(
                f"{display_name(item.name)} ran out of memory: run the command again with fewer --workers, or with a "
                "smaller --resolution, --pad or --patches-per-image"
            ) from error
        return PreprocessedItem(samples, pixels.notes)

    def _keeps(self, pixels: Pixels, image: Image.Image) -> bool:
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
        # metadata of the original would be written along
        image.info = {}
        buffer = io.BytesIO()
        image.save(buffer, format=target, **settings[target])
        return Sample(buffer.getvalue(), _EXTENSIONS[target], item.label, self._origin(item, more))

    def _origin(self, item: Item, more: dict[str, Any]) -> dict[str, Any] | None:
        return {"name": item.name, **dict(item.origin), **more} if self.origins else None


@dataclass(frozen=True)
class PointEncoder:
    """Makes samples of points, which have no origin but their number; see Preparation.

    Attributes:
        reader: of the items.
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
    """Reads the headers of items; those that cannot be read give None."""

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
