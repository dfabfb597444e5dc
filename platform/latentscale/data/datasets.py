"""Open the dataset that the configuration names."""

from pathlib import Path

from latentscale.data.first_use import bundled_folder
from latentscale.errors import UserError
from latentscale.shards.dataset_folders import refuse_missing_descriptions, refuse_missing_remote_descriptions
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.shell_command import shell_command
from latentscale.storage.cached_remote import CachedFolder
from latentscale.storage.dataset_files import DATASET_FILE, StorageOptions
from latentscale.storage.remote import is_remote, reason
from latentscale.storage.user_cache import default_shard_cache
from latentscale.wording import shown

BUNDLED = ("digits", "clusters")
DATASETS = (*BUNDLED, "shards")
SPLITS = ("train", "test")


class NoSuchSplit(UserError):
    """The dataset does not have the requested split."""


def open_dataset(
    name: str, path: Path | str | None = None, split: str = "train", options: StorageOptions | None = None
) -> ShardedDataset:
    """Open a split of a dataset.

    Args:
        name: ``digits`` (bundled), ``clusters`` (generated points)
            or ``shards`` (written by ``latentscale shards build``).
        path: for ``shards``, a folder or its URL; it holds either dataset.json (then it is the ``train`` split), or
            the folders train/ and test/.
        split: ``train`` or ``test``.
        options: for URLs, how files are fetched and cached; for folders, whether damaged datasets are opened.

    Raises:
        UserError: the dataset cannot be opened, or another split holds shards without their dataset.json; the message
            names ``data.name``, ``data.path`` or a file.
    """
    if split not in SPLITS:
        raise UserError(f"split {shown(split)} does not exist: use one of {', '.join(SPLITS)}")
    if name in BUNDLED:
        if path:
            raise UserError(
                f"data.path={shown(path)} is not used by data.name={name}: leave it out or set data.name=shards"
            )
        return ShardedDataset.open(bundled_folder(name, split))
    if name != "shards":
        raise UserError(f"data.name={shown(name)} does not exist: use one of {', '.join(DATASETS)}")
    if not path:
        raise UserError("data.path is missing: data.name=shards needs the folder that holds dataset.json")
    if is_remote(path):
        return _open_remote(str(path), split, options or StorageOptions(default_shard_cache()))
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"data.path={path} is not a folder: name the folder that holds dataset.json")
    refuse_missing_descriptions(folder)
    if (folder / DATASET_FILE).is_file():
        if split != "train":
            raise UserError(
                f"data.path={path} has no {split} split: put the splits into its folders train/ and test/, "
                "each with a dataset.json"
            )
        return ShardedDataset.open(folder, options)
    if (folder / split / DATASET_FILE).is_file():
        return ShardedDataset.open(folder / split, options)
    raise UserError(
        f"data.path={path} holds neither {DATASET_FILE} nor {split}/{DATASET_FILE}: "
        f"write shards there with {shell_command('shards', 'build', 'SOURCE', 'PATH', '--out', path)}"
    )


def open_held_out(
    training: ShardedDataset,
    name: str,
    path: Path | str | None = None,
    options: StorageOptions | None = None,
) -> ShardedDataset:
    """Open the test split that belongs to an opened ``train`` split; without one, return the ``train`` split."""
    if path and is_remote(path):
        # a URL that holds dataset.json itself has no other splits, so no request is needed
        if training.path == str(path).rstrip("/"):
            return training
        options = options or StorageOptions(default_shard_cache())
        # no run reads val/, but a dataset with a damaged split is refused
        refuse_missing_remote_descriptions([f"{str(path).rstrip('/')}/val"], options)
        try:
            return open_dataset(name, path, "test", options)
        except NoSuchSplit:
            return training
    return open_dataset(name, path, "test", options) if "test" in available_splits(name, path) else training


def _open_remote(path: str, split: str, options: StorageOptions) -> ShardedDataset:
    tried = []
    for url in ((path,) if split == "train" else ()) + (f"{path.rstrip('/')}/{split}",):
        folder = CachedFolder(url, options)
        try:
            folder.description()
        except (FileNotFoundError, PermissionError) as error:
            tried.append(f"{folder.location(DATASET_FILE)}: {reason(error)}")
            refuse_missing_remote_descriptions([url], options)
        else:
            return ShardedDataset.in_folder(folder)
    raise NoSuchSplit(
        f"data.path={path} holds no {split} split ({'; '.join(tried)}): upload a folder written by latentscale shards"
        " build, or fix its permissions"
    )


def available_splits(name: str, path: Path | str | None = None) -> tuple[str, ...]:
    """The splits of a local dataset that ``open_dataset`` can open; does not open them."""
    if name in BUNDLED:
        return SPLITS
    folder = Path(path or "")
    if (folder / DATASET_FILE).is_file():
        return ("train",)
    return tuple(split for split in SPLITS if (folder / split / DATASET_FILE).is_file())
