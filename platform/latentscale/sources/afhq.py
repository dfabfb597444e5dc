"""AFHQ v1 (train, val; JPEG) and v2 (train, test; PNG): ``{train,val}/{cat,dog,wild}``."""

from dataclasses import replace
from pathlib import Path

from latentscale.errors import UserError
from latentscale.sources.file_tree import FileReader, require_folder, walk
from latentscale.sources.labels import Labels
from latentscale.sources.listing import Item, Listing, Problem
from latentscale.sources.source_options import SourceOptions
from latentscale.wording import counted

CLASSES = ("cat", "dog", "wild")
SPLIT_OF_FOLDER = {"train": "train", "val": "test", "test": "test"}
IMAGES_OF_VERSION = {"afhq": 16_130, "afhq-v2": 15_803}
LICENCE = "CC BY-NC 4.0, StarGAN v2 (Choi et al. 2020), https://github.com/clovaai/stargan-v2"


def list_afhq(path: Path | None, options: SourceOptions) -> Listing:
    """List the images with their class; ``split=all`` uses all 16,130 for training and testing, as Cho 2025, §4.2 does.

    Raises:
        UserError: the folder does not have this layout.
    """
    root = require_folder(path, "afhq")
    tree = walk(root, options.follow_symlinks)
    splits: dict[str, list[Item]] = {"train": [], "test": []}
    for item in tree.items:
        parts = item.name.split("/")
        if len(parts) != 3 or parts[0] not in SPLIT_OF_FOLDER or parts[1] not in CLASSES:
            tree.problems.append(Problem(item.name, "is not in a folder {train,val}/{cat,dog,wild}"))
            continue
        split = SPLIT_OF_FOLDER[parts[0]] if options.split == "published" else "train"
        splits[split].append(replace(item, label=CLASSES.index(parts[1])))
    count = sum(map(len, splits.values()))
    if not count:
        raise UserError(f"{root} has no images in {{train,val}}/{{cat,dog,wild}}: name the folder that holds train/")
    is_png = sum(item.name.lower().endswith(".png") for items in splits.values() for item in items)
    name = "afhq-v2" if is_png > count / 2 else "afhq"
    notes = tree.notes()
    if count != (published := IMAGES_OF_VERSION[name]):
        notes.append(f"found {counted(count, 'image')}; the published {name} has {published}")
    return Listing(
        name=name,
        licence=LICENCE,
        splits={split: items for split, items in splits.items() if items},
        reader=FileReader(root),
        tree=root,
        labels=Labels(CLASSES, of=("animal",)),
        channels=3,
        uniform=True,
        sorted_by_label=True,
        same_in_test=options.split == "all",
        problems=tree.problems,
        notes=notes,
    )
