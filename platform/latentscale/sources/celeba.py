"""CelebA: aligned images, ``list_attr_celeba`` and ``list_eval_partition``, as the authors' .txt or as .csv files."""

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from latentscale.errors import UserError
from latentscale.sources.file_tree import FileReader, require_folder, walk
from latentscale.sources.labels import Labels, labels_from_values
from latentscale.sources.listing import Item, Listing, Problem
from latentscale.sources.source_options import SourceOptions

PARTITIONS = {"0": "train", "1": "val", "2": "test"}
LICENCE = "for non-commercial research, MMLAB, CUHK, https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


def list_celeba(path: Path | None, options: SourceOptions) -> Listing:
    """List the images by partition. The chosen attributes become binary labels; the JSON members list all attributes.

    Raises:
        UserError: a list is missing or damaged, or an attribute does not exist.
    """
    root = require_folder(path, "celeba")
    tree = walk(root, options.follow_symlinks)
    titles, attributes = _attributes(_one_file(root, "list_attr_celeba"))
    partition = _partition(_one_file(root, "list_eval_partition")) if options.split == "published" else {}
    chosen = _chosen(options.attributes, titles)
    labels = labels_from_values(options.attributes, [("0", "1")] * len(chosen)) if chosen else Labels()
    splits: dict[str, list[Item]] = {split: [] for split in PARTITIONS.values()}
    found = set()
    for item in tree.items:
        name = PurePosixPath(item.name).name
        values = attributes.get(name)
        if values is None or (partition and name not in partition):
            tree.problems.append(Problem(item.name, "is not in CelebA's lists"))
        elif name in found:
            raise UserError(f"{root} holds {name} twice: name a folder with only one version of the images")
        else:
            found.add(name)
            label = int("".join(values[column] for column in chosen), 2) if chosen else None
            origin = (("attributes", [title for title, value in zip(titles, values, strict=True) if value == "1"]),)
            split = partition.get(name, "train")
            splits[split].append(replace(item, label=label, origin=origin))
    if not found:
        raise UserError(f"{root} holds none of CelebA's images: name the folder with img_align_celeba and the lists")
    tree.problems += [
        Problem(name, "is in CelebA's lists, but the file is missing") for name in attributes if name not in found
    ]
    return Listing(
        name="celeba",
        licence=LICENCE,
        splits={split: items for split, items in splits.items() if items},
        reader=FileReader(root),
        tree=root,
        labels=labels,
        channels=3,
        uniform=True,
        same_in_test=options.split == "all",
        problems=tree.problems,
    )


def _one_file(root: Path, stem: str) -> Path:
    # next to the images, or in the folders Anno and Eval of the authors' archive
    candidates = [*root.glob(f"{stem}.*"), *root.glob(f"*/{stem}.*")]
    found = sorted(path for path in candidates if path.suffix in (".txt", ".csv"))
    if not found:
        raise UserError(f"{root} holds no {stem}.txt: put CelebA's lists next to the images")
    return found[0]


def _rows(path: Path) -> Iterator[list[str]]:
    """Yield the fields of each line; a list of all of them would take ten times the memory of the text."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): fetch it again") from error
    if path.suffix == ".csv":
        yield from (row for row in csv.reader(io.StringIO(text)) if row)
    else:
        yield from (line.split() for line in io.StringIO(text) if line.strip())


def _attributes(path: Path) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """The attributes' names, and each image's values as "0" and "1" (the files' −1 is 0)."""
    rows = _rows(path)
    if path.suffix == ".csv":
        titles = next(rows, [])[1:]
    else:
        # the authors' file begins with the number of images
        next(rows, None)
        titles = next(rows, [])
    binary = {"-1": "0", "0": "0", "1": "1"}
    attributes = {}
    for row in rows:
        if len(row) != len(titles) + 1 or not set(row[1:]) <= binary.keys():
            raise UserError(f"{path}: the line of {row[0]!r} must have {len(titles)} values of 1 or -1: fetch it again")
        attributes[row[0]] = tuple(binary[value] for value in row[1:])
    if not titles or not attributes:
        raise UserError(f"{path} lists no attributes: fetch it again")
    return titles, attributes


def _partition(path: Path) -> dict[str, str]:
    rows = _rows(path)
    if path.suffix == ".csv":
        next(rows, None)
    partition = {}
    for row in rows:
        if len(row) != 2 or row[1] not in PARTITIONS:
            raise UserError(f"{path}: the line of {row[0]!r} must have a partition 0, 1 or 2: fetch it again")
        partition[row[0]] = PARTITIONS[row[1]]
    return partition


def _chosen(wanted: tuple[str, ...], titles: list[str]) -> list[int]:
    for name in wanted:
        if name not in titles:
            raise UserError(f"--attributes {name} does not exist in CelebA: choose from {', '.join(titles)}")
    if len(set(wanted)) != len(wanted):
        raise UserError(f"--attributes {','.join(wanted)} names an attribute twice: name each once")
    return [titles.index(name) for name in wanted]
