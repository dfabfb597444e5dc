"""What zip and tar archives of images have in common; nothing of them is unpacked to the disk."""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from latentscale.errors import UserError
from latentscale.sources.listing import MAX_FILE_BYTES, Item, Listing, Problem, Reader
from latentscale.sources.source_options import SourceOptions
from latentscale.sources.splits_and_labels import SidecarFiles, split_and_label
from latentscale.wording import counted

TOO_LARGE = f"has more than the {MAX_FILE_BYTES} bytes that are read of one image"
MAX_LABEL_FILE_BYTES = 2**28


@dataclass
class Members:
    """What an archive holds: its images, what cannot be taken, and how many other members."""

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    others: int = 0


def require_file(path: Path | None, kind: str) -> Path:
    """The archive that a source is read from.

    Raises:
        UserError: there is none.
    """
    if path is None:
        raise UserError(f"PATH is missing: name the {kind} file, latentscale shards build {kind} PATH")
    if not path.is_file():
        raise UserError(f"{path} is not a file: name the {kind} file")
    return path


def file_stamp(path: Path) -> tuple[int, int]:
    """Size and time of an archive, by which a resumed build tells it from another with members of the same names."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def archive_listing(
    path: Path, members: Members, beside: SidecarFiles, reader: Reader, options: SourceOptions
) -> Listing:
    """The images of an archive, laid out like a folder.

    Args:
        path: of the archive.
        members: of it.
        beside: the files of labels in it.
        reader: of its images.
        options: ``labels`` and ``split`` of them.

    Raises:
        UserError: no images, or the labels asked for cannot be had.
    """
    items, problems = sorted(members.items, key=lambda item: item.name), set(members.problems)
    if not items and not problems:
        raise UserError(f"{path} holds no images: name an archive that has some")
    twice = {second.name for first, second in pairwise(items) if first.name == second.name}
    problems |= {Problem(name, "is in the archive twice") for name in twice}
    splits, labels = split_and_label([item for item in items if item.name not in twice], options, beside, str(path))
    return Listing(
        name=path.stem,
        licence="unknown",
        splits=splits,
        reader=reader,
        labels=labels,
        sorted_by_label=bool(labels.names),
        same_in_test=options.split == "all",
        problems=sorted(problems),
        notes=[f"{counted(members.others, 'member')} without an image's name left alone"] if members.others else [],
    )
