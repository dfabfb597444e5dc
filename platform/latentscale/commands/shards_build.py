"""``latentscale shards build``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentscale.building.build_options import BuildOptions, ImageOptions
from latentscale.commands.new_dataset import new_folder
from latentscale.commands.option_parameters import with_options
from latentscale.errors import interruptible_imports
from latentscale.progress_bar import progress_bar
from latentscale.sources.layout_names import LAYOUTS as SOURCE_HELP
from latentscale.sources.source_options import Panel, SourceOptions
from latentscale.wording import counted, escaped

if TYPE_CHECKING:
    from latentscale.building.build_dataset import Built
    from latentscale.sources.listing import Listing

SKIPPED_SHOWN = 20
LABELS_SHOWN = 10

_SOURCES = "\n".join(f"  [cyan]{name:<17}[/cyan]{line}" for name, line in SOURCE_HELP.items())


HELP = f"""
Build a dataset of shards from images, in the layout in which they were published or kept.

[bold]Examples[/bold]

  latentscale shards build folder photos/ --out data/photos --resolution 64
  latentscale shards build afhq afhq/ --out data/afhq256 --resolution 256
  latentscale shards build idx mnist/ --out data/mnist --pad 32
  latentscale shards build celeba celeba/ --out data/celeba --resolution 256 \\
      --fit stretch --attributes Bangs,Male,Smiling
  latentscale shards build clusters --out data/clusters --shard-size 8
  python recipes/pvdgan.py data.name=shards data.path=data/photos

[bold]Sources[/bold]

{_SOURCES}

The build writes train/ and, if the source has such images, test/ and val/.
The folder --out appears when everything is written. If the build is killed or
the disk is full, the same command continues after the last finished shard.

Images are rotated upright by their EXIF data. With --resolution they are
cropped to the central square and resized with Lanczos (antialiased). 16-bit
grey is scaled to 8 bits; palette and CMYK images become RGB. dataset.json
records what was done.

Clusters are not images but vectors of float32, one .npy file each. With
--shard-size 8 their order is the one in which data.name=clusters trains.
"""


@with_options(Panel)
def build(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="One of the sources listed above.")],
    path: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="The folder or archive to read; digits, photos and clusters take none. tar, parquet and npz take "
            "several files, a folder of them, or a pattern such as 'train-{000..146}.tar'.",
            # what cannot be read is named as every other wrong input is
            readable=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the new dataset, outside the folders that are read; required.",
            readable=False,
        ),
    ] = None,
    *,
    source_options: SourceOptions,
    images: ImageOptions,
    options: BuildOptions,
) -> None:
    """Build a dataset of shards; see ``HELP``."""
    with interruptible_imports():
        from latentscale.building.build_dataset import build_dataset
        from latentscale.sources.registry import list_source

    out = new_folder(out)
    listing = list_source(source, path, source_options)
    try:
        with progress_bar() as report:
            built = build_dataset(source, listing, out, images, options, report)
    except KeyboardInterrupt:
        print(f"\nstopped: run the same command to continue {out} after its last finished shard")
        raise typer.Exit(130) from None
    _print_built(built, listing)


def _print_built(built: "Built", listing: "Listing") -> None:
    with interruptible_imports():
        from rich.console import Console

    console = Console(soft_wrap=True, highlight=False, markup=False)
    for note in listing.notes:
        console.print(escaped(f"note: {note}"))
    for what, count in sorted(built.notes.items()):
        console.print(escaped(f"note: {counted(count, 'image')}: {what}"))
    for problem in built.skipped[:SKIPPED_SHOWN]:
        console.print(escaped(f"left out: {problem}"))
    if len(built.skipped) > SKIPPED_SHOWN:
        console.print(f"left out: {len(built.skipped) - SKIPPED_SHOWN} more, all named in dataset.json")
    noun = ("point",) if listing.generated else ("image",) if listing.patches is None else ("patch", "patches")
    for split, count in built.counts.items():
        console.print(escaped(f"{split}: {counted(count, *noun)}, {_label_names(listing.labels.names)}"))
    counts = ", ".join(f"{count} {split}" for split, count in built.counts.items())
    resumed = f" ({built.resumed_samples} of them by an earlier run)" if built.resumed_samples else ""
    samples = "sample" if sum(built.counts.values()) == 1 else "samples"
    console.print(f"{escaped(str(built.out))}: {counts} {samples}{resumed}, {built.bytes / 2**20:.1f} MB")


def _label_names(names: tuple[str, ...]) -> str:
    with interruptible_imports():
        from latentscale.sources.listing import display_name

    if not names:
        return "no labels"
    more = f", and {len(names) - LABELS_SHOWN} more" if len(names) > LABELS_SHOWN else ""
    return f"labels {', '.join(map(display_name, names[:LABELS_SHOWN]))}{more}"
