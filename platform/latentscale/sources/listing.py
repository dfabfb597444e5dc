"""The listing that every source returns: its images by split, their properties, and a reader for any process."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from latentscale.decoding.image_suffixes import IMAGE_SUFFIXES, suffix
from latentscale.sources.labels import Labels
from latentscale.wording import counted

LABEL_FILES = ("labels.json", "labels.csv", "metadata.jsonl", "metadata.csv")
"""Names of label files in small letters; the first has precedence."""

_TABLE_SUFFIXES = frozenset(
    (
        ".cls", ".csv", ".json", ".jsonl", ".mat", ".ndjson", ".npy", ".npz", ".parquet", ".pkl", ".tsv", ".txt",
        ".xls", ".xlsx", ".xml",
    )
)  # fmt: skip
# texts that come with a dataset and describe no image
_PROSE = re.compile(r"(read.?me|licen[cs]e|copying|credits|notice|attributions?|change.?log)\b.*", re.IGNORECASE)

STYLEGAN_FILE = "dataset.json"
"""StyleGAN's dataset tool writes labels here; other tools use the name for other things."""

_SHOWN_ORIGINS = 5

MAX_FILE_BYTES = 2**29
"""A larger image file is refused before it is read."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image, or point, of a source.

    Attributes:
        name: unique name within the source, used in messages and in the shards' JSON members.
        place: tells the source's reader where the image is.
        stamp: numbers that change when the image changes, such as its size and modification time.
        label: index into the listing's labels.
        origin: further entries of the JSON member.
    """

    name: str
    place: Any
    stamp: tuple[int, ...]
    label: int | None = None
    origin: tuple[tuple[str, Any], ...] = ()

    def identity(self) -> bytes:
        """What a resumed build compares: equal if the image, its label and its origin are unchanged."""
        return repr((self.name, self.stamp, self.label, self.origin)).encode("utf-8", "backslashreplace") + b"\n"


class Problem(NamedTuple):
    """The name of an image that cannot be used, and the reason."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{display_name(self.name)} {self.reason}"


class Reader(Protocol):
    """Reads an item in any process; picklable."""

    def read(self, item: Item) -> bytes | NDArray[Any]:
        """The encoded file, or uint8 pixels ``[H, W]`` or ``[H, W, 3]``; for a point, float32 ``[D]``.

        Raises:
            OSError: the item cannot be read.
            UnreadableItem: its content is damaged or too large.
        """
        ...


class UnreadableItem(Exception):
    """An item that cannot be used; the message continues a line that begins with the item's name."""


@dataclass(frozen=True)
class Patches:
    """Square patches to cut from every image.

    Attributes:
        layout: ``grid`` tiles the image from its centre without overlap; ``random`` draws places.
        size: side of a patch, in pixels.
        count: number of random patches per image.
    """

    layout: str
    size: int
    count: int = 1


@dataclass(frozen=True)
class Generated:
    """Samples that are points, not images.

    Attributes:
        shape: (D,), the shape of a sample.
        steps: how they were generated, described for dataset.json.
    """

    shape: tuple[int, ...]
    steps: tuple[str, ...]


@dataclass
class Listing:
    """A source's images, in the order in which a build writes them.

    Attributes:
        name: name of the dataset.
        licence: licence of the data.
        splits: the images of each split.
        reader: reads the items.
        labels: the meaning of the items' labels.
        channels: 1 or 3 if the layout fixes it; None: read the images' headers.
        uniform: whether all images of the layout have one size.
        sorted_by_label: whether the images come label by label, so that the build should shuffle them.
        same_in_test: whether the test split is the same images as ``train``; then only ``train`` is listed.
        patches: the patches to cut from every image.
        read_in_place: files that hold many images each, with their stamps before anything was read; a build fails if
            one changes meanwhile.
        tree: the folder that is searched for images at any depth; None if files are found by name.
        generated: describes generated points; None for images.
        problems: images that cannot be used.
        notes: lines to print for the user.
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
    read_in_place: Mapping[Path, tuple[int, int]] = field(default_factory=dict)
    tree: Path | None = None
    generated: Generated | None = None
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def origin_notes(splits: Mapping[str, Sequence[Item]], labels: Labels, origin: str) -> list[str]:
    """Where the labels are from, and which of them no training image has; nothing without labels."""
    if not labels.names:
        return []
    count = sum(item.label is not None for items in splits.values() for item in items)
    notes = [f"labels of {counted(count, 'image')} from {origin}"]
    seen = {item.label for items in splits.values() for item in items}
    for split, word in (("train", "training"), ("test", "test")):
        here = {item.label for item in splits.get(split, ())}
        if not here or (split == "test" and here == {None}):
            continue
        if absent := sorted(label for label in seen - here if label is not None):
            shown = ", ".join(display_name(labels.names[label]) for label in absent[:5])
            more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
            notes.append(f"no {word} image has the label{'s' if len(absent) > 1 else ''} {shown}{more}")
    return notes


def origins_text(counts: Mapping[str, int]) -> str:
    """Where labels are from: one origin, or several with how many labels come from each."""
    if len(counts) == 1:
        return next(iter(counts))
    named = [f"{origin} ({count})" for origin, count in counts.items()]
    if len(named) > _SHOWN_ORIGINS:
        rest = sum(list(counts.values())[_SHOWN_ORIGINS:])
        named = [*named[:_SHOWN_ORIGINS], f"{len(named) - _SHOWN_ORIGINS} more ({rest})"]
    return f"{', '.join(named[:-1])} and {named[-1]}"


def digest(items: Iterable[Item]) -> str:
    """SHA-256 over the identities of items in their order."""
    running = hashlib.sha256()
    for item in items:
        running.update(item.identity())
    return running.hexdigest()


def display_name(name: str) -> str:
    """A name for a one-line message, with control characters and undecodable bytes escaped."""
    return name if name.isprintable() else ascii(name)[1:-1]


def is_image(name: str) -> bool:
    """Whether a file name has an image suffix and is not hidden or in a folder that macOS adds to archives."""
    parts = name.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and suffix(name) in IMAGE_SUFFIXES


def other_notes(count: int, kind: str, tables: Sequence[str]) -> list[str]:
    """A line about files that are ignored, if there are any.

    Args:
        count: their number.
        kind: what the source calls its files.
        tables: the names of those that may hold labels.
    """
    if not count:
        return []
    line = f"ignored {counted(count, kind)} without an image's file name"
    if tables:
        more = f" and {len(tables) - 1} more" if len(tables) > 1 else ""
        names = f"{display_name(min(tables))}{more}"
        line += f"; {names} may hold labels, which are not read: --labels FILE reads a table of them"
    return [line]


def may_hold_labels(name: str) -> bool:
    """Whether a file is named like a table or a description, but is neither an image nor looked for."""
    *folders, base = name.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in (*folders, base))
    return (
        suffix(base) in _TABLE_SUFFIXES
        and not _PROSE.match(base)
        and base != STYLEGAN_FILE
        and not hidden
        and not is_label_file(name)
    )


def is_label_file(name: str) -> bool:
    """Whether a file is named like a label file and is not in a hidden folder."""
    *folders, base = name.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in folders)
    return base.lower() in LABEL_FILES and not hidden
