"""The options of ``latentscale shards build`` that say how a source is read; each source uses some of them."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from latentscale.options import check_options, documented, given, option

MAX_SIDE = 8192
"""Largest side of an image or patch that is written, in pixels: a dataset.json may state no larger RGB image."""


class Panel(StrEnum):
    """The panels of ``latentscale shards build --help``, in their order."""

    IMAGES = "Images"
    LABELS = "Splits and labels"
    PATCHES = "Patches"
    CLUSTERS = "Clusters"
    SHARDS = "Shards"
    DAMAGE = "Damage and interruptions"


def seed_option() -> Any:
    """The field ``seed``, which sources and images share."""
    return option(
        0,
        "Seed of the order of the samples, of random patches and of clusters.",
        panel=Panel.SHARDS,
        minimum=0,
    )


def comma_separated(text: str) -> tuple[str, ...]:
    """The parts of a list such as ``Bangs,Male``, without spaces around them; empty parts are dropped."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


@documented
@dataclass(frozen=True)
class SourceOptions:
    """How a source is read. The registry lists which source uses which option."""

    split: str = option(
        "published",
        "published keeps the splits of the source. all puts every image into both train and test. none puts all into "
        "train.",
        panel=Panel.LABELS,
        choices=("published", "all", "none"),
    )
    splits: str = option(
        "",
        "The folders of the splits, where they are not called train, val or test (or Training, test2017, seg_train and "
        "so on). * is the name of any folder, as in train=*/train. Images outside of them are left out.",
        panel=Panel.LABELS,
        metavar="train=DIR,test=DIR",
    )
    labels: str = option(
        "auto",
        'Labels of a folder or archive. FILE is CSV whose first line is "file,TITLE,...", or JSON such as '
        '{"cat/1.png": "cat"}. auto reads labels.json, labels.csv, metadata.csv, metadata.jsonl or StyleGAN\'s '
        "dataset.json beside the images; without such a file, folders are labels. none leaves labels out, also those "
        "of idx files.",
        panel=Panel.LABELS,
        metavar="auto|folders|none|FILE",
    )
    label_field: tuple[str, ...] = option(
        "",
        "What holds the labels, where auto cannot tell: a column of a parquet dataset, an array of .npz files, or the "
        "ending of a tar's members, such as cls, or json.KEY for a key of the .json members. Several labels are "
        "combined.",
        panel=Panel.LABELS,
        metavar="NAME,...",
        parse=comma_separated,
    )
    image_field: str = option(
        "",
        "What holds the images, where there are several: a column, an array, or the ending of a tar's members.",
        panel=Panel.LABELS,
        metavar="NAME",
    )
    layout: str = option(
        "",
        "Order of the values of a colour image in an array: hwc is height, width, channel, and chw is channel first.",
        panel=Panel.LABELS,
        choices=("hwc", "chw"),
        default_text="by the array's shape",
    )
    attributes: tuple[str, ...] = option(
        "",
        "CelebA attributes that become binary labels, at most 12.",
        panel=Panel.LABELS,
        metavar="A,B,...",
        parse=comma_separated,
    )
    subset: str = option(
        "",
        "The set to read from a folder that holds several EMNIST sets: balanced, letters, digits, ...",
        panel=Panel.LABELS,
        metavar="NAME",
    )
    originals: Path | None = option(
        None,
        "Folder of MNIST's idx files. mnist-c pairs its images with them and takes the labels from them.",
        panel=Panel.LABELS,
        metavar="DIR",
    )
    corruptions: tuple[str, ...] = option(
        "",
        "The corruptions of mnist-c to read, in this order.",
        panel=Panel.LABELS,
        metavar="A,B,...",
        default_text="all",
        parse=comma_separated,
    )
    patches: str = option(
        "",
        "Cut patches at random positions, or on a grid without overlap.",
        panel=Panel.PATCHES,
        choices=("random", "grid"),
        default_text="grid for photos, otherwise random",
    )
    patch_size: int = option(
        0, "Side of a patch.", panel=Panel.PATCHES, unit="pixels", minimum=0, maximum=MAX_SIDE, default_text="32"
    )
    patches_per_image: int = option(
        0, "Number of random patches from each image.", panel=Panel.PATCHES, minimum=0, default_text="1"
    )
    count: int = option(
        0, "Points in the train split.", panel=Panel.CLUSTERS, unit="points", minimum=0, default_text="131072"
    )
    test_count: int = option(
        0, "Points in the test split.", panel=Panel.CLUSTERS, unit="points", minimum=0, default_text="4096"
    )
    means: str = option(
        "",
        "Means of the clusters, in any dimension.",
        panel=Panel.CLUSTERS,
        metavar="X,Y;X,Y;...",
        default_text="-1,1;0,-2;1,-1;2,1",
    )
    deviation: float | None = option(
        None,
        "Standard deviation of every coordinate within a cluster.",
        panel=Panel.CLUSTERS,
        metavar="X",
        default_text="0.3",
    )
    probabilities: str = option(
        "",
        "Probability of each cluster.",
        panel=Panel.CLUSTERS,
        metavar="P,P,...",
        default_text="0.1,0.2,0.3,0.4; equal where --means is given",
    )
    follow_symlinks: bool = option(
        False, "Follow links to folders, and links that lead out of PATH.", panel=Panel.DAMAGE
    )
    seed: int = seed_option()

    def given(self) -> list[str]:
        """The names of the options that are not at their defaults."""
        return [spec.name for spec in given(self)]

    def check(self) -> None:
        """Check every value.

        Raises:
            UserError: naming the option.
        """
        check_options(self)
