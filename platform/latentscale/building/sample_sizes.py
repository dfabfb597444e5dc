"""The shape of a dataset's samples, taken from the images where options and layout do not fix it."""

from collections import Counter
from itertools import islice

from latentscale.building.build_options import ImageOptions
from latentscale.building.build_progress import BuildProgress
from latentscale.building.pixels import Header
from latentscale.building.sample_preparation import HeaderReader
from latentscale.errors import UserError
from latentscale.parallel_map import CHUNK_ITEMS, Report, in_chunks, ordered_map
from latentscale.sources.listing import Item, Listing, digest, display_name

Size = tuple[int, int]


class SampleSizes:
    """Decides (C, H, W) of a listing's samples.

    Args:
        listing: the images.
        images: the image options.
        workers: number of processes that read the headers.
    """

    def __init__(self, listing: Listing, images: ImageOptions, workers: int) -> None:
        self._listing, self._images, self._workers = listing, images, workers
        self._items: list[Item] = [item for items in listing.splits.values() for item in items]

    def decide(self, progress: BuildProgress, report: Report) -> tuple[tuple[int, int, int], Size | None]:
        """The shape of the samples, and the size that every image must already have (None if the options set it).

        Raises:
            UserError: the images have several sizes, or none can be read.
        """
        channels = self._images.channels or self._listing.channels
        given = self._given_size()
        if channels and given:
            return (channels, *given), None
        if channels and self._listing.uniform:
            height, width = self._first_size()
        else:
            grey, height, width = self._from_headers(progress, report, need_size=given is None)
            channels = channels or (1 if grey else 3)
        return (channels, *(given or (height, width))), None if given else (height, width)

    def _given_size(self) -> Size | None:
        side = self._listing.patches.size if self._listing.patches else self._images.pad or self._images.resolution
        return (side, side) if side else None

    def _first_size(self) -> Size:
        read_headers = HeaderReader(self._listing.reader)
        for chunk in in_chunks(self._items, 0, 1):
            for header in read_headers(chunk):
                if header is not None:
                    return header.height, header.width
        raise UserError(f"no image of {self._listing.name} can be read: check that PATH holds images")

    def _from_headers(self, progress: BuildProgress, report: Report, need_size: bool) -> tuple[bool, int, int]:
        listing = digest(self._items)
        if (found := progress.kept_headers(listing)) is None:
            found = self._read_all_headers(report)
            progress.keep_headers(listing, found)
        sizes = [((height, width), name) for height, width, name in found["sizes"]]
        if need_size and len(sizes) > 1:
            (first, first_name), (second, second_name) = sizes[:2]
            raise UserError(
                f"{display_name(first_name)} is {first[0]}x{first[1]} pixels, "
                f"{display_name(second_name)} {second[0]}x{second[1]}: resize them to one size with --resolution N"
            )
        return found["grey"], *sizes[0][0]

    def _read_all_headers(self, report: Report) -> dict[str, object]:
        """Whether all images are grey, and the three most common sizes with the name of an image of each."""
        read_headers = HeaderReader(self._listing.reader)
        headers: Counter[Size] = Counter()
        examples: dict[Size, str] = {}
        grey, names, done, total = True, iter(self._items), 0, len(self._items)
        for chunk in ordered_map(read_headers, in_chunks(self._items, 0, CHUNK_ITEMS), self._workers):
            for item, header in zip(islice(names, len(chunk)), chunk, strict=True):
                if isinstance(header, Header):
                    grey = grey and header.grey
                    headers[header.height, header.width] += 1
                    examples.setdefault((header.height, header.width), item.name)
            done += len(chunk)
            report("reading image sizes", done, total)
        if not headers:
            raise UserError(f"no image of {self._listing.name} can be read: check that PATH holds images")
        return {"grey": grey, "sizes": [[*size, examples[size]] for size, _ in headers.most_common(3)]}
