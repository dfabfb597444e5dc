"""What a user may ask of sources; each source uses some of it."""

from dataclasses import dataclass, fields
from pathlib import Path

from latentscale.errors import UserError

SPLITS = ("published", "all", "none")
PATCH_LAYOUTS = ("random", "grid")
MAX_SIDE = 8192
"""Of the images and patches that are written, in pixels: in colour, no more than what a dataset.json may promise."""


def check_side(option: str, pixels: int) -> None:
    """Refuse a side that no dataset has, before memory is asked for by it.

    Raises:
        UserError: naming the option.
    """
    if not 0 <= pixels <= MAX_SIDE:
        raise UserError(
            f"--{option} {pixels} is not allowed: images and patches of a dataset have at most {MAX_SIDE} pixels a side"
        )


@dataclass(frozen=True)
class SourceOptions:
    """Options that belong to some sources only; a default means that nothing was asked.

    Attributes:
        labels: ``auto``, ``folders``, ``none``, or a JSON or CSV file.
        attributes: that become labels, in this order.
        split: ``published``, ``all`` images in train and test alike, or ``none``: all in train.
        originals: folder of the images that corrupted ones were made from.
        corruptions: those to take, in this order; empty takes all.
        subset: of a folder that holds several sets.
        patches: ``random`` or ``grid``.
        patch_size: side of a patch, in pixels.
        patches_per_image: random patches cut out of an image.
        follow_symlinks: whether links may lead out of the source's folder.
        count, test_count: points of the train and of the test split; 0 is the source's own number.
        means: of clusters, their coordinates by commas and clusters by semicolons.
        deviation: of clusters.
        probabilities: of clusters, by commas.
        seed: of what is drawn.
    """

    labels: str = "auto"
    attributes: tuple[str, ...] = ()
    split: str = "published"
    originals: Path | None = None
    corruptions: tuple[str, ...] = ()
    subset: str = ""
    patches: str = ""
    patch_size: int = 0
    patches_per_image: int = 0
    follow_symlinks: bool = False
    count: int = 0
    test_count: int = 0
    means: str = ""
    deviation: float | None = None
    probabilities: str = ""
    seed: int = 0

    def given(self) -> list[str]:
        """The names of the options that are not at their defaults."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]
