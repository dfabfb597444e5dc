"""What every source gives: its images by split, what is known of them, and a reader for any process."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from latentscale.errors import UserError
from latentscale.sources.labels import Labels

IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif", ".qoi"),
    )
)
"""Names that are taken for images; other files are left alone."""

LABEL_FILES = ("labels.json", "labels.csv")
"""Files of labels, the first preferred."""

MAX_FILE_BYTES = 2**29
"""An encoded image larger than this is refused before it is read."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image, or point, of a source.

    Attributes:
        name: unique within the source, as messages and the shards' JSON members give it.
        place: where the source's reader finds it.
        stamp: numbers that change when the image does, such as its size and time.
        label: index into the listing's labels.
        origin: what the JSON member says beside the name.
    """

    name: str
    place: Any
    stamp: tuple[int, ...]
    label: int | None = None
    origin: tuple[tuple[str, Any], ...] = ()

    def identity(self) -> bytes:
        """What a resumed build compares: equal where the image, its label and its origin are."""
        return repr((self.name, self.stamp, self.label, self.origin)).encode("utf-8", "backslashreplace") + b"\n"


class Problem(NamedTuple):
    """An image, or the name of one, that cannot be taken, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{display_name(self.name)} {self.reason}"


class Reader(Protocol):
    """Reads an item in any process; picklable."""

    def read(self, item: Item) -> bytes | NDArray[Any]:
        """The encoded file, or uint8 pixels ``[H, W]`` or ``[H, W, 3]``; of points float32 ``[D]``.

        Raises:
            OSError: the item cannot be read.
            UnreadableItem: nor is its content what it should be.
        """
        ...


class UnreadableItem(Exception):
    """An item whose image cannot be taken; the message is the rest of a line that begins with its name."""


@dataclass(frozen=True)
class Patches:
    """Square pieces cut out of every image.

    Attributes:
        layout: ``grid`` tiles the image from its centre without overlap; ``random`` draws places.
        size: of their side, in pixels.
        count: of random patches an image.
    """

    layout: str
    size: int
    count: int = 1


@dataclass(frozen=True)
class Generated:
    """Samples that are no images.

    Attributes:
        shape: of each, (D,).
        steps: how they came about, in words for dataset.json.
    """

    shape: tuple[int, ...]
    steps: tuple[str, ...]


@dataclass
class Listing:
    """A source's images, in the order in which they are to be written.

    Attributes:
        name: of the dataset.
        licence: of the data, in words.
        splits: the images of each.
        reader: of the items.
        labels: what the items' labels mean.
        channels: 1 or 3 where the layout says so; None looks at the images.
        uniform: whether the layout promises one size for all images.
        sorted_by_label: whether neighbours share a label, so that the order should be shuffled.
        same_in_test: whether the test split holds the very images of ``train``, which then lists them alone.
        patches: what is cut out of every image.
        tree: the folder whose images are taken however deep they stand; None where files are found by name.
        generated: what the samples are where they are no images; None of images.
        problems: images that cannot be taken.
        notes: lines for the user.
    """

    name: str
    licence: str
    splits: dict[str, list[Item]]
    reader: Reader
    labels: Labels = field(default_factory=Labels)
    channels: int | None = None
    uniform: bool = False
    sorted_by_label: bool = False
    same_in_test: bool = False
    patches: Patches | None = None
    tree: Path | None = None
    generated: Generated | None = None
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def digest(items: Iterable[Item]) -> str:
    """SHA-256 over the identities of items in their order."""
    running = hashlib.sha256()
    for item in items:
        running.update(item.identity())
    return running.hexdigest()


def display_name(name: str) -> str:
    """A name as one line of a message can show it: control characters and undecodable bytes escaped."""
    return name if name.isprintable() else ascii(name)[1:-1]


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image, and not one that systems leave behind."""
    parts = name.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    base, dot, suffix = parts[-1].rpartition(".")
    return bool(base) and not hidden and (dot + suffix).lower() in IMAGE_SUFFIXES


def is_label_file(name: str) -> bool:
    """Whether a file is called as files of labels are, in a folder that is not left alone."""
    *folders, base = name.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in folders)
    return base in LABEL_FILES and not hidden


def split_folders(
    names: Sequence[str], wanted: str, aliases: Mapping[str, str], location: str
) -> tuple[dict[str, list[int]], list[str]]:
    """Sort names into splits by their first folder, where they stand in folders that name one.

    Args:
        names: with ``/`` between folders.
        wanted: ``published`` as the folders say; ``all`` or ``none`` takes them as one split, ``train``.
        aliases: the split that each folder's name stands for.
        where: the folder or archive, for messages.

    Returns:
        The indices of each split's names, and the names without the folder of the split.

    Raises:
        UserError: some stand in folders that name splits and others do not, so that nobody can tell what is meant.
    """
    first = [name.split("/", 1) for name in names]
    in_split = [len(parts) == 2 and parts[0] in aliases for parts in first]
    if any(in_split) and not all(in_split) and wanted != "none":
        folders = ", ".join(sorted({f"{parts[0]}/" for parts, known in zip(first, in_split, strict=True) if known}))
        strays = [name for name, known in zip(names, in_split, strict=True) if not known]
        more = f" and {len(strays) - 1} more images do" if len(strays) > 1 else " does"
        raise UserError(
            f"{location} has splits in {display_name(folders)}, but {display_name(strays[0])}{more} not stand in "
            "them: move what is elsewhere there or away, or take all folders for labels of one split with --split none"
        )
    if not all(in_split):
        return {"train": list(range(len(names)))}, list(names)
    splits: dict[str, list[int]] = {}
    for index, parts in enumerate(first):
        splits.setdefault(aliases[parts[0]] if wanted == "published" else "train", []).append(index)
    return splits, [parts[1] for parts in first]
