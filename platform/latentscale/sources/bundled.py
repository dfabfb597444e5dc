"""Images from installed libraries: scikit-learn's digits, and photographs from scikit-learn and scikit-image."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentscale.errors import UserError
from latentscale.sources.digits import LICENCE as DIGITS_LICENCE
from latentscale.sources.digits import TRAIN_SAMPLES, digit_images
from latentscale.sources.file_tree import FileReader
from latentscale.sources.labels import Labels
from latentscale.sources.listing import Item, Listing, Patches
from latentscale.sources.source_options import SourceOptions

PHOTOS_LICENCE = (
    "China and flower CC BY 2.0 (scikit-learn's copies); the others in the public domain or free to use, as "
    "scikit-image's skimage.data tells of each"
)
PATCH_SIZE = 32

_SKLEARN_PHOTOS = ("china.jpg", "flower.jpg")
# the test split holds whole photographs; the stereo pair of the motorcycle stays in one split
_SKIMAGE_PHOTOS = (
    "astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png",
    "motorcycle_right.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
_TEST_PHOTOS = frozenset({"coffee.png", "flower.jpg"})


@dataclass(frozen=True)
class DigitReader:
    """Reads scikit-learn's digits by number."""

    def read(self, item: Item) -> NDArray[np.uint8]:
        return _digits()[0][item.place]


@lru_cache(maxsize=1)
def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return digit_images()


def list_digits(path: Path | None, options: SourceOptions) -> Listing:
    """List the 1,797 digits of 8x8 pixels, with the splits of ``data.name=digits``."""
    _refuse_path(path, "digits")
    _, numbers = _digits()
    items = [Item(f"digits[{i}]", i, (i,), int(label), (("number", i),)) for i, label in enumerate(numbers)]
    published = {"train": items[:TRAIN_SAMPLES], "test": items[TRAIN_SAMPLES:]}
    return Listing(
        name="digits",
        licence=DIGITS_LICENCE,
        splits=published if options.split == "published" else {"train": items},
        reader=DigitReader(),
        labels=Labels(tuple("0123456789"), of=("digit",)),
        channels=1,
        uniform=True,
        same_in_test=options.split == "all",
    )


def list_photos(path: Path | None, options: SourceOptions) -> Listing:
    """List patches of eleven colour photographs; two of the photographs are the test split.

    Raises:
        UserError: scikit-image is not installed.
    """
    _refuse_path(path, "photos")
    folders = {
        _package_folder("sklearn") / "datasets" / "images": _SKLEARN_PHOTOS,
        _package_folder("skimage") / "data": _SKIMAGE_PHOTOS,
    }
    splits: dict[str, list[Item]] = {"train": [], "test": []}
    for folder, names in folders.items():
        for name in names:
            if not (file := folder / name).is_file():
                raise UserError(f"{file} is missing: reinstall the photographs, pip install 'latentscale[photos]'")
            split = "test" if options.split == "published" and name in _TEST_PHOTOS else "train"
            splits[split].append(Item(name, str(file), (file.stat().st_size,)))
    return Listing(
        name="photos",
        licence=PHOTOS_LICENCE,
        splits={split: items for split, items in splits.items() if items},
        reader=FileReader(Path()),
        channels=3,
        same_in_test=options.split == "all",
        patches=Patches(options.patches or "grid", options.patch_size or PATCH_SIZE, options.patches_per_image or 1),
    )


def _refuse_path(path: Path | None, source: str) -> None:
    if path is not None:
        raise UserError(f"PATH {path} is not used by {source}, which comes with installed libraries: leave it out")


def _package_folder(package: str) -> Path:
    # importing the package takes seconds, and only its image files are needed
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError("photos needs scikit-image: pip install 'latentscale[photos]'")
    return Path(spec.submodule_search_locations[0])
