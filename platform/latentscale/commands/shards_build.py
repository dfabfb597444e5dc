"""``latentscale shards build``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latentscale.commands.new_dataset import new_folder, shard_bytes
from latentscale.commands.processors import processors
from latentscale.commands.progress_bar import progress_bar
from latentscale.errors import UserError
from latentscale.sources.layout_names import LAYOUTS as SOURCE_HELP
from latentscale.sources.source_options import MAX_SIDE
from latentscale.wording import counted

if TYPE_CHECKING:
    from latentscale.building.build_dataset import Built
    from latentscale.sources.listing import Listing

SKIPPED_SHOWN = 20
LABELS_SHOWN = 10

_SOURCES = "\n".join(f"  [cyan]{name:<17}[/cyan]{line}" for name, line in SOURCE_HELP.items())

_IMAGES, _LABELS, _PATCHES = "Images", "Splits and labels", "Patches"
_CLUSTERS, _SHARDS, _TROUBLE = "Clusters", "Shards", "Damage and interruptions"


HELP = f"""
Build a dataset of shards from images as they are published or kept.

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

DIR gets train/ and, where there are such images, test/ (and val/). It appears
when all is written. Was the build killed, or the disk full? The same command
goes on after the last finished shard.

Images are turned as EXIF says and, given --resolution, cropped to the centred
square and resized with Lanczos (antialiased). 16-bit grey is scaled to 8
bits; palette and CMYK become RGB. dataset.json tells what was done.

Clusters are no images but vectors of float32, a .npy file each. Of 8 MB a shard
they stand in the very order in which data.name=clusters trains on them.
"""


def build(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The layout; see the list above.")],
    path: Annotated[
        Path | None,
        typer.Argument(metavar="[PATH]", help="The folder or archive; digits, photos and clusters take none."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The new dataset's folder, not within a tree that is read; required."),
    ] = None,
    resolution: Annotated[
        int,
        typer.Option(
            min=0,
            help=f"Side of the square images, at most {MAX_SIDE}; 0 keeps their size. Of patches: of the image they "
            "are cut from.",
            rich_help_panel=_IMAGES,
        ),
    ] = 0,
    fit: Annotated[
        str, typer.Option(help="crop (the centred square) or stretch, before resizing.", rich_help_panel=_IMAGES)
    ] = "crop",
    pad: Annotated[
        int,
        typer.Option(min=0, help="Frame with black to this side, e.g. 32 for MNIST; 0: none.", rich_help_panel=_IMAGES),
    ] = 0,
    channels: Annotated[
        int,
        typer.Option(help="1 (grey) or 3 (RGB); 0: grey where all images are.", rich_help_panel=_IMAGES),
    ] = 0,
    background: Annotated[
        str,
        typer.Option(
            metavar="COLOR",
            help="Lay translucent pixels over this, e.g. white or #808080; without it they are refused.",
            rich_help_panel=_IMAGES,
        ),
    ] = "",
    format: Annotated[
        str,
        typer.Option(
            help="auto, png, jpeg or webp. auto writes PNG, but keeps the JPEG, PNG and WebP files whose "
            "pixels do not change, byte for byte.",
            rich_help_panel=_IMAGES,
        ),
    ] = "auto",
    quality: Annotated[
        int, typer.Option(min=1, max=100, help="Of written JPEG and WebP.", rich_help_panel=_IMAGES)
    ] = 95,
    png_compression: Annotated[
        int, typer.Option(min=0, max=9, help="zlib level of written PNG.", rich_help_panel=_IMAGES)
    ] = 6,
    split: Annotated[
        str,
        typer.Option(
            help="published, all (every image in train and test alike) or none (all in train).",
            rich_help_panel=_LABELS,
        ),
    ] = "published",
    labels: Annotated[
        str,
        typer.Option(
            metavar="auto|folders|none|FILE",
            help='Labels of a tree or archive. FILE is CSV whose first line is "file,TITLE,...", or JSON such as '
            '{"cat/1.png": "cat"}. auto takes labels.json, labels.csv or dataset.json (as of StyleGAN) beside the '
            "images, else their folders.",
            rich_help_panel=_LABELS,
        ),
    ] = "auto",
    attributes: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            help="CelebA attributes that become binary labels, at most 12.",
            rich_help_panel=_LABELS,
        ),
    ] = "",
    subset: Annotated[
        str, typer.Option(help="Of EMNIST: balanced, letters, digits, ...", rich_help_panel=_LABELS)
    ] = "",
    originals: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="MNIST's idx files: mnist-c pairs with them, and takes its digits from there.",
            rich_help_panel=_LABELS,
        ),
    ] = None,
    corruptions: Annotated[
        str, typer.Option(metavar="A,B,...", help="Of mnist-c; all by default.", rich_help_panel=_LABELS)
    ] = "",
    patches: Annotated[
        str,
        typer.Option(metavar="random|grid", help="random, or a grid without overlap.", rich_help_panel=_PATCHES),
    ] = "",
    patch_size: Annotated[
        int, typer.Option(min=0, help="Side; 32 by default.", rich_help_panel=_PATCHES, show_default=False)
    ] = 0,
    patches_per_image: Annotated[
        int, typer.Option(min=0, help="Random ones, 1 by default.", rich_help_panel=_PATCHES, show_default=False)
    ] = 0,
    count: Annotated[
        int,
        typer.Option(
            min=0, help="Points to train on; 131072 by default.", rich_help_panel=_CLUSTERS, show_default=False
        ),
    ] = 0,
    test_count: Annotated[
        int,
        typer.Option(
            min=0, help="Points of the test split; 4096 by default.", rich_help_panel=_CLUSTERS, show_default=False
        ),
    ] = 0,
    means: Annotated[
        str,
        typer.Option(
            metavar="X,Y;X,Y;...",
            help="Of the clusters, in any dimension; -1,1;0,-2;1,-1;2,1 by default.",
            rich_help_panel=_CLUSTERS,
        ),
    ] = "",
    deviation: Annotated[
        float | None,
        typer.Option(help="Of every coordinate; 0.3 by default.", rich_help_panel=_CLUSTERS, show_default=False),
    ] = None,
    probabilities: Annotated[
        str,
        typer.Option(
            metavar="P,P,...",
            help="One a cluster; 0.1,0.2,0.3,0.4 by default, of other means all the same.",
            rich_help_panel=_CLUSTERS,
        ),
    ] = "",
    shard_size: Annotated[
        float, typer.Option(metavar="MB", min=0.001, help="In units of 2^20 bytes.", rich_help_panel=_SHARDS)
    ] = 256.0,
    shuffle: Annotated[
        bool | None,
        typer.Option(
            "--shuffle/--no-shuffle",
            help="Write in random order. By default only what comes sorted by label is shuffled.",
            rich_help_panel=_SHARDS,
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the order, of random patches and of clusters.", rich_help_panel=_SHARDS)
    ] = 0,
    origins: Annotated[
        bool,
        typer.Option(
            help="Keep a JSON member beside each image: its name, a patch's place, CelebA's attributes. "
            "Points have none.",
            rich_help_panel=_SHARDS,
        ),
    ] = True,
    name: Annotated[str, typer.Option(help="Of the dataset, instead of the source's.", rich_help_panel=_SHARDS)] = "",
    licence: Annotated[str, typer.Option(help="Of the data, instead of the source's.", rich_help_panel=_SHARDS)] = "",
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Processes; by default one a processor, 0: none beside this one. The bytes do not depend on it.",
            rich_help_panel=_SHARDS,
            show_default=False,
        ),
    ] = None,
    on_error: Annotated[
        str,
        typer.Option(
            help="fail at the first image that cannot be taken, or skip such images and list them.",
            rich_help_panel=_TROUBLE,
        ),
    ] = "fail",
    max_errors: Annotated[int, typer.Option(min=0, help="skip stops above this many.", rich_help_panel=_TROUBLE)] = 100,
    follow_symlinks: Annotated[
        bool,
        typer.Option(
            "--follow-symlinks", help="Take links that lead out of PATH or to folders.", rich_help_panel=_TROUBLE
        ),
    ] = False,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="Drop what an interrupted build towards --out has left.", rich_help_panel=_TROUBLE
        ),
    ] = False,
) -> None:
    """Build a dataset of shards from images as they are published or kept."""
    from latentscale.building.build_dataset import build_dataset as build_shards
    from latentscale.building.build_options import BuildOptions, ImageOptions
    from latentscale.sources.registry import list_source
    from latentscale.sources.source_options import SourceOptions

    out = new_folder(out)
    images = ImageOptions(resolution, channels, fit, pad, format, quality, png_compression, _colour(background), seed)
    options = BuildOptions(
        shard_bytes=shard_bytes(shard_size),
        workers=processors() if workers is None else workers,
        shuffle=shuffle,
        origins=origins,
        name=name,
        licence=licence,
        on_error=on_error,
        max_errors=max_errors,
        restart=restart,
    )
    source_options = SourceOptions(
        labels=labels,
        attributes=_listed(attributes),
        split=split,
        originals=originals,
        corruptions=_listed(corruptions),
        subset=subset,
        patches=patches,
        patch_size=patch_size,
        patches_per_image=patches_per_image,
        follow_symlinks=follow_symlinks,
        count=count,
        test_count=test_count,
        means=means,
        deviation=deviation,
        probabilities=probabilities,
        seed=seed,
    )
    listing = list_source(source, path, source_options)
    try:
        with progress_bar() as report:
            built = build_shards(source, listing, out, images, options, report)
    except KeyboardInterrupt:
        print(f"\nstopped: the same command goes on with {out} from its last finished shard")
        raise typer.Exit(130) from None
    _print_built(built, listing)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _colour(name: str) -> tuple[int, int, int] | None:
    from PIL import ImageColor

    if not name:
        return None
    try:
        colour = ImageColor.getrgb(name)
    except ValueError as error:
        raise UserError(f"--background {name} is no colour: give a name such as white, or #RRGGBB") from error
    if len(colour) != 3:
        raise UserError(f"--background {name} has an alpha channel, and a background is opaque: give #RRGGBB")
    return colour


def _print_built(built: "Built", listing: "Listing") -> None:
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False, markup=False)
    for note in listing.notes:
        console.print(f"note: {note}")
    for what, count in sorted(built.notes.items()):
        console.print(f"note: {counted(count, 'image')}: {what}")
    for problem in built.skipped[:SKIPPED_SHOWN]:
        console.print(f"left out: {problem}")
    if len(built.skipped) > SKIPPED_SHOWN:
        console.print(f"left out: {len(built.skipped) - SKIPPED_SHOWN} more, all named in dataset.json")
    noun = ("point",) if listing.generated else ("image",) if listing.patches is None else ("patch", "patches")
    for split, count in built.counts.items():
        console.print(f"{split}: {counted(count, *noun)}, {_label_names(listing.labels.names)}")
    counts = ", ".join(f"{count} {split}" for split, count in built.counts.items())
    resumed = f" ({built.resumed_samples} of them by an earlier run)" if built.resumed_samples else ""
    samples = "sample" if sum(built.counts.values()) == 1 else "samples"
    console.print(f"{built.out}: {counts} {samples}{resumed}, {built.bytes / 2**20:.1f} MB")


def _label_names(names: tuple[str, ...]) -> str:
    from latentscale.sources.listing import display_name

    if not names:
        return "no labels"
    more = f", and {len(names) - LABELS_SHOWN} more" if len(names) > LABELS_SHOWN else ""
    return f"labels {', '.join(map(display_name, names[:LABELS_SHOWN]))}{more}"
