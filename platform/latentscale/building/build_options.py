"""What a user may ask of the images and the shards of a build."""

from dataclasses import dataclass, fields

from latentscale.errors import UserError
from latentscale.shards.sample import DEFAULT_SHARD_BYTES
from latentscale.sources.source_options import check_side

FITS = ("crop", "stretch")
FORMATS = ("auto", "png", "jpeg", "webp")
ON_ERROR = ("fail", "skip")


@dataclass(frozen=True)
class ImageOptions:
    """How images become samples.

    Attributes:
        resolution: of the square images, 0 keeps their size (of patches: of the image they are cut from).
        channels: 1 or 3; 0 looks: grey where all images are.
        fit: ``crop`` cuts the largest centred square before resizing, ``stretch`` resizes as it is.
        pad: side to which smaller images are framed in black, 0 for none.
        format: of images whose pixels change; ``auto`` is PNG, and keeps the files of others.
        quality: of JPEG and WebP, 1 … 100.
        png_compression: zlib's level, 0 … 9.
        background: that translucent pixels are laid over, RGB; None refuses them.
        seed: of the places of random patches and of the order.
    """

    resolution: int = 0
    channels: int = 0
    fit: str = "crop"
    pad: int = 0
    format: str = "auto"
    quality: int = 95
    png_compression: int = 6
    background: tuple[int, int, int] | None = None
    seed: int = 0

    def refuse_for_points(self, source: str) -> None:
        """Refuse whatever was asked of images where there are none.

        Raises:
            UserError: naming the option.
        """
        for one in fields(self):
            if one.name != "seed" and getattr(self, one.name) != one.default:
                raise UserError(
                    f"--{one.name.replace('_', '-')} is not used by {source}, which are points and no images: leave it"
                    " out"
                )

    def check(self) -> None:
        """Refuse what does not exist, and sizes beyond any dataset's.

        Raises:
            UserError: naming the option.
        """
        check_side("resolution", self.resolution)
        check_side("pad", self.pad)
        for option, value, allowed in (("fit", self.fit, FITS), ("format", self.format, FORMATS)):
            if value not in allowed:
                raise UserError(f"--{option} {value} does not exist: use one of {', '.join(allowed)}")
        if self.channels not in (0, 1, 3):
            raise UserError(f"--channels {self.channels} is not allowed: 1 (grey) or 3 (RGB)")
        if self.pad and self.resolution > self.pad:
            raise UserError(f"--pad {self.pad} is smaller than --resolution {self.resolution}: images would not fit")


@dataclass(frozen=True)
class BuildOptions:
    """How the shards are written and what happens to damage; none of it changes a sample.

    Attributes:
        shard_bytes: the size at which a shard ends.
        workers: processes that make images ready; 0 does it in this one.
        shuffle: whether the samples are put into a random order first; None where labels come sorted.
        origins: whether each sample has a JSON member that tells where it comes from.
        name, licence: to be used instead of the source's, unless empty.
        on_error: ``fail`` stops at the first image that cannot be taken, ``skip`` leaves it out.
        max_errors: that ``skip`` bears.
        restart: drops what an earlier, unfinished build has left.
    """

    shard_bytes: int = DEFAULT_SHARD_BYTES
    workers: int = 0
    shuffle: bool | None = None
    origins: bool = True
    name: str = ""
    licence: str = ""
    on_error: str = "fail"
    max_errors: int = 100
    restart: bool = False

    def check(self) -> None:
        """Refuse what does not exist.

        Raises:
            UserError: naming the option.
        """
        if self.on_error not in ON_ERROR:
            raise UserError(f"--on-error {self.on_error} does not exist: use one of {', '.join(ON_ERROR)}")
