"""Any tree of images."""

from pathlib import Path

from latentscale.containers.file_kinds import files_that_are_not_read
from latentscale.containers.input_files import suffixes_without_images
from latentscale.errors import UserError
from latentscale.sources.file_tree import FileReader, require_folder, walk
from latentscale.sources.label_tables import LabelFile
from latentscale.sources.listing import Listing
from latentscale.sources.source_options import SourceOptions
from latentscale.sources.splits_and_labels import SidecarFiles, split_and_label

_OTHER_SOURCES = {".tar": "tar", ".parquet": "parquet", ".npz": "npz", ".npy": "npz"}


def list_folder(path: Path | None, options: SourceOptions) -> Listing:
    """List the images of a tree; top folders train/, val/ and test/ are splits, the folders in them are labels.

    Raises:
        UserError: the tree holds no images, or the requested labels are missing.
    """
    root = require_folder(path, "folder")
    tree = walk(root, options.follow_symlinks)
    if not tree.items and not tree.problems:
        sources = {source for ending, source in _OTHER_SOURCES.items() if ending in suffixes_without_images(root)}
        if not sources and (unread := files_that_are_not_read(root)):
            raise UserError(f"{root} holds no images, but {unread}")
        other = f", but files that {' and '.join(sorted(sources))} can build" if sources else ""
        raise UserError(f"{root} holds no images{other}: name a folder of images{' or that source' if other else ''}")

    def read_label_file(name: str) -> LabelFile | None:
        file = root / name
        try:
            return LabelFile(str(file), file.read_bytes()) if file.is_file() else None
        except OSError as error:
            raise UserError(f"{file} cannot be read ({error.strerror}): fix its permissions") from error

    found = split_and_label(tree.items, options, SidecarFiles(tree.label_files, read_label_file), str(root))
    return Listing(
        name=root.resolve().name,
        licence="unknown",
        splits=found.splits,
        reader=FileReader(root),
        tree=root,
        labels=found.labels,
        sorted_by_label=bool(found.labels.names),
        same_in_test=options.split == "all",
        problems=tree.problems,
        notes=[*tree.notes(found.described), *found.notes],
    )
