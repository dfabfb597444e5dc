"""The options of ``latentscale shards build`` that say how images and shards are written."""

from dataclasses import dataclass

from latentscale.errors import UserError
from latentscale.options import check_options, documented, flag, given, option
from latentscale.processors import processors
from latentscale.shards.sample import DEFAULT_SHARD_BYTES
from latentscale.sources.source_options import MAX_SIDE, Panel, seed_option

_MEGABYTE = 2**20


def parse_colour(name: str) -> tuple[int, int, int] | None:
    """A colour as RGB; None for an empty name.

    Raises:
        UserError: there is no such colour, or it is not opaque.
    """
    if not name:
        return None
    # imported only here, so that the help is fast
    from PIL import ImageColor

    try:
        colour = ImageColor.getrgb(name)
    except ValueError as error:
        raise UserError(f"--background must be a colour such as white or #RRGGBB, got {name}") from error
    if len(colour) != 3:
        raise UserError(f"--background {name} has an alpha channel, but a background is opaque: give #RRGGBB")
    return colour


def megabytes_to_bytes(megabytes: float) -> int:
    """The number of bytes in ``megabytes`` of 2^20 bytes."""
    return int(megabytes * _MEGABYTE)


@documented
@dataclass(frozen=True)
class ImageOptions:
    """How images become samples."""

    resolution: int = option(
        0,
        "Side of the square images; 0 keeps their size. Where patches are cut, side of the image that they are cut "
        "from.",
        panel=Panel.IMAGES,
        unit="pixels",
        minimum=0,
        maximum=MAX_SIDE,
    )
    fit: str = option(
        "crop",
        "What to do before resizing: crop cuts out the largest centred square, stretch keeps the whole image.",
        panel=Panel.IMAGES,
        choices=("crop", "stretch"),
    )
    pad: int = option(
        0,
        "Add a black frame up to this side, e.g. 32 for MNIST; 0 adds none.",
        panel=Panel.IMAGES,
        unit="pixels",
        minimum=0,
        maximum=MAX_SIDE,
    )
    channels: int = option(
        0,
        "1 is grey, 3 is RGB. 0 is grey if all images are, otherwise RGB.",
        panel=Panel.IMAGES,
        choices=(0, 1, 3),
    )
    background: tuple[int, int, int] | None = option(
        "",
        "Colour to put behind translucent pixels, e.g. white or #808080. Without it, images with such pixels are "
        "refused.",
        panel=Panel.IMAGES,
        metavar="COLOUR",
        parse=parse_colour,
    )
    format: str = option(
        "auto",
        "Format of the written images. auto keeps JPEG, PNG and WebP files byte for byte if their pixels do not "
        "change, and writes PNG otherwise.",
        panel=Panel.IMAGES,
        choices=("auto", "png", "jpeg", "webp"),
    )
    quality: int = option(95, "Quality of written JPEG and WebP.", panel=Panel.IMAGES, minimum=1, maximum=100)
    png_compression: int = option(6, "zlib level of written PNG.", panel=Panel.IMAGES, minimum=0, maximum=9)
    seed: int = seed_option()

    def refuse_for_points(self, source: str) -> None:
        """Refuse all image options for a source of points.

        Raises:
            UserError: naming the option.
        """
        for spec in given(self):
            # points have an order too
            if spec.name != "seed":
                raise UserError(f"{flag(spec)} is not used by {source}, which are points and not images: leave it out")

    def check(self) -> None:
        """Check every value, and that images fit into their frame.

        Raises:
            UserError: naming the option.
        """
        check_options(self)
        if self.pad and self.resolution > self.pad:
            raise UserError(f"--pad {self.pad} is smaller than --resolution {self.resolution}: images would not fit")


@documented
@dataclass(frozen=True)
class BuildOptions:
    """How the shards are written, and what happens to unreadable images; none of it changes a sample."""

    shard_bytes: int = option(
        DEFAULT_SHARD_BYTES / _MEGABYTE,
        "Size of a shard, in units of 2^20 bytes.",
        panel=Panel.SHARDS,
        name="shard_size",
        unit="MB",
        minimum=0.001,
        parse=megabytes_to_bytes,
    )
    workers: int | None = option(
        None,
        "Worker processes; 0 does all work in the main process. The shards do not depend on it.",
        panel=Panel.SHARDS,
        unit="processes",
        minimum=0,
        maximum=1024,
        default_text="one per CPU",
    )
    shuffle: bool | None = option(
        None,
        "Write the samples in random order.",
        panel=Panel.SHARDS,
        default_text="only if they come sorted by label",
    )
    origins: bool = option(
        True,
        "Keep a JSON file beside each image: its name, the position of a patch, CelebA's attributes. Points have none.",
        panel=Panel.SHARDS,
    )
    name: str = option("", "Name of the dataset.", panel=Panel.SHARDS, metavar="TEXT", default_text="the source's")
    licence: str = option("", "Licence of the data.", panel=Panel.SHARDS, metavar="TEXT", default_text="the source's")
    on_error: str = option(
        "fail",
        "fail stops at the first image that cannot be used. skip leaves such images out and lists them.",
        panel=Panel.DAMAGE,
        choices=("fail", "skip"),
    )
    max_errors: int = option(
        100, "--on-error skip stops after more errors than this.", panel=Panel.DAMAGE, unit="images", minimum=0
    )
    restart: bool = option(False, "Delete what an interrupted build of --out has left.", panel=Panel.DAMAGE)

    @property
    def processes(self) -> int:
        """The number of worker processes; 0 for none beside the main process."""
        return processors() if self.workers is None else self.workers

    def check(self) -> None:
        """Check every value.

        Raises:
            UserError: naming the option.
        """
        check_options(self)
