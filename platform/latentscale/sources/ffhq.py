"""FFHQ: numbered faces, flat or in folders of 1,000; 50,000 train and the last 20,000 test (Cho 2025, §4.2.1)."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

from latentscale.errors import UserError
from latentscale.sources.file_tree import FileReader, require_folder, walk
from latentscale.sources.listing import Item, Listing, Problem
from latentscale.sources.source_options import SourceOptions

IMAGES = 70_000
TRAIN_IMAGES = 50_000
LICENCE = "CC BY-NC-SA 4.0, NVIDIA; each photograph has its own licence, https://github.com/NVlabs/ffhq-dataset"


def list_ffhq(path: Path | None, options: SourceOptions) -> Listing:
    """List the images by the number in their names.

    Raises:
        UserError: the folder holds no images, or two with the same number.
    """
    root = require_folder(path, "ffhq")
    tree = walk(root, options.follow_symlinks)
    numbered: dict[int, Item] = {}
    for item in tree.items:
        stem = PurePosixPath(item.name).stem
        # other tools' archives of FFHQ call the files img00000000.png
        digits = stem.removeprefix("img")
        if not (digits.isascii() and digits.isdigit() and int(digits) < IMAGES):
            tree.problems.append(Problem(item.name, f"is not named by a number below {IMAGES}"))
        elif (other := numbered.get(int(digits))) is not None:
            raise UserError(
                f"{root}: {other.name} and {item.name} have the same number: name a folder with only one resolution"
            )
        else:
            numbered[int(digits)] = item
    items = [replace(numbered[number], origin=(("number", number),)) for number in sorted(numbered)]
    if options.split == "published":
        splits = {
            "train": [item for item in items if dict(item.origin)["number"] < TRAIN_IMAGES],
            "test": [item for item in items if dict(item.origin)["number"] >= TRAIN_IMAGES],
        }
    else:
        splits = {"train": items}
    notes = tree.notes()
    if len(items) < IMAGES:
        notes.append(f"found {len(items)} of FFHQ's {IMAGES} images")
    return Listing(
        name="ffhq",
        licence=LICENCE,
        splits={split: chosen for split, chosen in splits.items() if chosen},
        reader=FileReader(root),
        tree=root,
        channels=3,
        uniform=True,
        same_in_test=options.split == "all",
        problems=tree.problems,
        notes=notes,
    )
