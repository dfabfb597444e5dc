"""Datasets by name, as the configuration gives them."""

from pathlib import Path

from latentscale.data.clusters import Clusters
from latentscale.data.digits import digits_folder
from latentscale.data.shards import DATASET_FILE, ShardedDataset
from latentscale.errors import UserError

DATASETS = ("digits", "clusters", "shards")
SPLITS = ("train", "test")


def open_dataset(name: str, path: Path | str | None = None, split: str = "train") -> ShardedDataset | Clusters:
    """Open a split of a dataset.

    Args:
        name: ``digits`` (bundled), ``clusters`` (generated points) or ``shards`` (that ``write_shards`` wrote).
        path: for ``shards`` the folder: with dataset.json (which then is the ``train`` split), or with train/
            and test/ folders.
        split: ``train`` or ``test``.

    Raises:
        UserError: naming ``data.name``, ``data.path`` or the file at fault.
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r} does not exist: use one of {', '.join(SPLITS)}")
    if name == "digits":
        if path:
            raise UserError(f"data.path={path} is not used by data.name=digits: leave it out or set data.name=shards")
        return ShardedDataset.open(digits_folder(split))
    if name == "clusters":
        if path:
            raise UserError(f"data.path={path} is not used by data.name=clusters: leave it out or set data.name=shards")
        return Clusters(split)
    if name != "shards":
        raise UserError(f"data.name={name} does not exist: use one of {', '.join(DATASETS)}")
    if not path:
        raise UserError("data.path is missing: data.name=shards needs the folder that holds dataset.json")
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"data.path={path} is not a folder: name the folder that holds dataset.json")
    if (folder / DATASET_FILE).is_file():
        if split != "train":
            raise UserError(
                f"data.path={path} has no {split} split: put the splits into its folders train/ and test/, "
                "each with a dataset.json"
            )
        return ShardedDataset.open(folder)
    if (folder / split / DATASET_FILE).is_file():
        return ShardedDataset.open(folder / split)
    raise UserError(
        f"data.path={path} holds neither {DATASET_FILE} nor {split}/{DATASET_FILE}: "
        "write shards there with latentscale.data.shards.write_shards"
    )


def available_splits(name: str, path: Path | str | None = None) -> tuple[str, ...]:
    """The splits that ``open_dataset`` can open; opens nothing."""
    if name in ("digits", "clusters"):
        return SPLITS
    folder = Path(path or "")
    if (folder / DATASET_FILE).is_file():
        return ("train",)
    return tuple(split for split in SPLITS if (folder / split / DATASET_FILE).is_file())
