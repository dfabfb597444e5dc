"""What zip and tar archives of images have in common. Nothing is unpacked to disk."""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from latentscale.errors import UserError
from latentscale.shell_command import shell_command
from latentscale.sources.listing import MAX_FILE_BYTES, Item, Listing, Problem, Reader, other_notes
from latentscale.sources.source_options import SourceOptions
from latentscale.sources.splits_and_labels import SidecarFiles, split_and_label

TOO_LARGE = f"is larger than {MAX_FILE_BYTES} bytes, the limit for one image"
MAX_LABEL_FILE_BYTES = 2**28


@dataclass
class Members:
    """The contents of an archive: its images, the members that cannot be used, and the number of other members."""

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    others: int = 0
    tables: list[str] = field(default_factory=list)


def require_file(path: Path | None, kind: str) -> Path:
    """Check that PATH is a file.

    Raises:
        UserError: PATH is missing or is not a file.
    """
    if path is None:
        raise UserError(f"PATH is missing: name the {kind} file, {shell_command('shards', 'build', kind)} PATH")
    if not path.is_file():
        raise UserError(f"{path} is not a file: name the {kind} file")
    return path


def archive_listing(
    path: Path,
    stamp: tuple[int, int],
    members: Members,
    sidecars: SidecarFiles,
    reader: Reader,
    options: SourceOptions,
) -> Listing:
    """The listing of an archive whose members are laid out like a folder.

    Args:
        path: path of the archive.
        stamp: of the archive before anything was read.
        members: its members.
        sidecars: its label files.
        reader: reads its images.
        options: ``labels`` and ``split`` are used.

    Raises:
        UserError: the archive holds no images, or the requested labels are missing.
    """
    items, problems = sorted(members.items, key=lambda item: item.name), set(members.problems)
    if not items and not problems:
        raise UserError(f"{path} holds no images: name an archive of images")
    twice = {second.name for first, second in pairwise(items) if first.name == second.name}
    problems |= {Problem(name, "is in the archive twice") for name in twice}
    found = split_and_label([item for item in items if item.name not in twice], options, sidecars, str(path))
    return Listing(
        name=path.stem,
        licence="unknown",
        splits=found.splits,
        reader=reader,
        read_in_place={path: stamp},
        labels=found.labels,
        sorted_by_label=bool(found.labels.names),
        same_in_test=options.split == "all",
        problems=sorted(problems),
        notes=[
            *other_notes(members.others - found.described, "member", members.tables),
            *found.notes,
        ],
    )
