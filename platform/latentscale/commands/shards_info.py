"""``latentscale shards info``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from latentscale.atomic import refuse_special_file
from latentscale.commands.storage import options_for
from latentscale.errors import UserError, interruptible_imports
from latentscale.local_paths import refuse_url
from latentscale.wording import counted, escaped

if TYPE_CHECKING:
    from rich.console import Console

    from latentscale.shards.sharded_dataset import ShardedDataset

LABELS_SHOWN = 40
BAR_CELLS = 32


def info(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR|URL",
            help="A dataset, or the folder that holds its splits; s3://, gs:// and http(s):// work too.",
        ),
    ],
    picture: Annotated[
        str,
        typer.Option(
            metavar="FILE|none",
            help="File for the contact sheet; none draws no sheet. By default it is contact-sheet.png in DIR; for a "
            "URL, in the current folder.",
        ),
    ] = "",
) -> None:
    """Show a dataset: sample counts, labels, size, licence and how its images were processed; draw a contact sheet.

    [bold]Examples[/bold]

      latentscale shards info data/photos --picture photos.png
      latentscale shards info s3://bucket/photos

    From a URL only the indexes and the images on the contact sheet are downloaded.
    """
    with interruptible_imports():
        from rich.console import Console

        from latentscale.shards.dataset_folders import dataset_folders, folder_name
        from latentscale.shards.dataset_json import read_description
        from latentscale.shards.sharded_dataset import ShardedDataset

    options = options_for(folder)
    datasets = [(folder_name(path), ShardedDataset.open(path, options)) for path in dataset_folders(folder, options)]
    descriptions = [read_description(dataset.folder) for _, dataset in datasets]
    # a pipe has no width
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    target = Path(picture) if picture else Path("" if options else folder) / "contact-sheet.png"
    if picture != "none":
        refuse_url(picture, "--picture ", "name a file, and upload it afterwards")
        refuse_special_file(target)
    _print_facts(console, folder, datasets, descriptions)
    _print_labels(console, datasets)
    if picture != "none":
        with interruptible_imports():
            from latentscale.pictures import save_png
            from latentscale.shards.contact_sheet import Split, contact_sheet

        splits = [Split(name, dataset, dataset.stored_labels()) for name, dataset in datasets]
        try:
            save_png(contact_sheet(splits), target)
        except OSError as error:
            raise UserError(
                f"{target} cannot be written ({error.strerror}): name another file with --picture"
            ) from error
        console.print(escaped(f"picture: {target}"), soft_wrap=True, markup=False)


def _print_facts(
    console: "Console",
    folder: str,
    datasets: list[tuple[str, "ShardedDataset"]],
    descriptions: list[dict[str, Any]],
) -> None:
    with interruptible_imports():
        from rich.table import Table

    first = datasets[0][1]
    table = Table(title=_cell(f"{first.name} in {folder}"), title_justify="left", box=None, pad_edge=False)
    for title in ("split", "samples", "shards", "MB", "each", "files"):
        table.add_column(title, justify="left" if title in ("split", "files") else "right")
    for name, dataset in datasets:
        megabytes = dataset.shard_sizes_bytes.sum() / 2**20
        table.add_row(
            _cell(name),
            str(dataset.count),
            str(len(dataset.shard_counts)),
            f"{megabytes:.1f}",
            _shape(dataset.shape),
            ", ".join(dataset.extensions),
        )
    console.print(table)
    description = descriptions[0]
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_row("licence", _cell(first.licence))
    if "source" in description:
        facts.add_row("source", _cell(str(description["source"])))
    for number, step in enumerate((description.get("transform") or {}).get("steps", ())):
        facts.add_row("" if number else "made" if len(first.shape) == 1 else "images", _cell(str(step)))
    for (name, _), one in zip(datasets, descriptions, strict=True):
        for what, count in (one.get("converted") or {}).items():
            facts.add_row("converted", _cell(f"{name}: {counted(count, 'image')}: {what}"))
        if one.get("left_out"):
            left_out = f"{counted(len(one['left_out']), 'image')}, the first: {one['left_out'][0]}"
            facts.add_row("left out", _cell(f"{name}: {left_out}"))
        if one.get("split"):
            how = (f"{key} {value}" for key, value in one["split"].items() if key != "of")
            facts.add_row("split", _cell(f"{name}: {', '.join(how)}"))
    facts.add_row("fingerprint", first.fingerprint)
    console.print(facts)


def _shape(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return f"{shape[0]} numbers"
    channels, height, width = shape
    return f"{height}x{width} {'grey' if channels == 1 else 'RGB'}"


def _print_labels(console: "Console", datasets: list[tuple[str, "ShardedDataset"]]) -> None:
    with interruptible_imports():
        import numpy as np
        from rich.bar import Bar
        from rich.table import Table

    first = datasets[0][1]
    if not first.labels:
        console.print("no labels")
        return
    counts = {name: dataset.label_counts() for name, dataset in datasets if dataset.labels == first.labels}
    total = np.sum(list(counts.values()), axis=0)
    table = Table("label", *counts, "", box=None, pad_edge=False)
    for column in range(1, len(counts) + 1):
        table.columns[column].justify = "right"
    largest = max(int(total.max()), 1)
    order = range(len(first.labels))
    shown = list(order) if len(order) <= LABELS_SHOWN else sorted(order, key=lambda k: -int(total[k]))[:LABELS_SHOWN]
    for label in shown:
        bar = Bar(largest, 0, int(total[label]), width=BAR_CELLS, color="cyan")
        table.add_row(_cell(first.labels[label]), *(str(found[label]) for found in counts.values()), bar)
    console.print(table)
    if len(first.labels) > len(shown):
        console.print(f"and {counted(len(first.labels) - len(shown), 'rarer label')}")


def _cell(text: str) -> str:
    """A user's text in a table: on one line, and without rich's markup."""
    return escape(escaped(text))
