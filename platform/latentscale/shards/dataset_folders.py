"""Finding the dataset folders under a local path or a URL: a single dataset, or one per split."""

from collections.abc import Collection, Iterable
from pathlib import Path

from latentscale.errors import UserError
from latentscale.shards.shard_format import is_shard_file
from latentscale.storage.dataset_files import DATASET_FILE, StorageOptions
from latentscale.storage.remote import Remote, is_remote, reason
from latentscale.storage.urls import check_url

_ORDER = ("train", "val", "test")


def dataset_folders(path: Path | str, options: StorageOptions | None = None) -> list[Path | str]:
    """Return the folders that hold a dataset.json: ``path`` itself, or those directly below it, train first.

    Args:
        path: a folder or a URL. Below a URL only train/, val/ and test/ are tried: web servers give no listings.
        options: how failing requests are retried; required for URLs.

    Raises:
        UserError: no dataset was found, or a folder holds shards without a dataset.json.
    """
    if is_remote(path):
        assert options is not None
        check_url(str(path), options.path_prefix)
        return list(_remote_folders(str(path).rstrip("/"), options))
    folder = Path(path)
    if (folder / DATASET_FILE).is_file():
        return [folder]
    refuse_missing_descriptions(folder)
    found = [one for one in _folders_below(folder) if (one / DATASET_FILE).is_file()]
    if not found:
        raise UserError(f"{path} holds no {DATASET_FILE}: name a folder written by latentscale shards build")
    found.sort(key=lambda one: (_ORDER.index(one.name) if one.name in _ORDER else len(_ORDER), one.name))
    return list(found)


def folder_name(path: Path | str) -> str:
    """Return the last part of a path or URL, which names the split."""
    return str(path).rstrip("/").rpartition("/")[2] or str(path)


def refuse_missing_descriptions(folder: Path) -> None:
    """Refuse shards without a dataset.json in a local folder, or in the folders directly below it.

    Otherwise a split that lost its dataset.json would be silently ignored. The subfolders of a dataset are not checked.

    Raises:
        UserError: naming the folder.
    """
    if (folder / DATASET_FILE).is_file():
        return
    for one in (folder, *_folders_below(folder)):
        if not (one / DATASET_FILE).is_file():
            _refuse_shards_alone(one, _names(one))


def refuse_missing_remote_descriptions(urls: Iterable[str], options: StorageOptions) -> None:
    """Do the same for folders behind URLs, where the remote supports listing.

    Raises:
        UserError: naming the folder, or the remote does not respond.
    """
    for url in urls:
        names = Remote(url, options).names()
        if DATASET_FILE not in names:
            _refuse_shards_alone(url, names)


def split_urls(url: str) -> list[str]:
    """Return the URLs at which the splits of a remote dataset are expected."""
    return [f"{url}/{split}" for split in _ORDER]


def _refuse_shards_alone(folder: Path | str, names: Collection[str]) -> None:
    if shards := sorted(filter(is_shard_file, names)):
        again = "upload" if is_remote(folder) else "copy"
        raise UserError(
            f"{folder} holds shards ({shards[0]}) but no {DATASET_FILE}: {again} its {DATASET_FILE} again, rebuild the"
            " dataset, or move the folder elsewhere"
        )


def _folders_below(folder: Path) -> list[Path]:
    """Return the subfolders sorted by name, without hidden ones (unfinished builds)."""
    if not folder.is_dir():
        return []
    return [folder / name for name in _names(folder) if not name.startswith(".") and (folder / name).is_dir()]


def _names(folder: Path) -> list[str]:
    try:
        return sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"{folder} cannot be listed ({error.strerror}): fix its permissions") from error


def _remote_folders(url: str, options: StorageOptions) -> list[str]:
    failures = []
    for folders in ([url], split_urls(url)):
        found = []
        for folder in folders:
            try:
                Remote(folder, options).read(DATASET_FILE)
            except (FileNotFoundError, PermissionError) as error:
                failures.append(f"{folder}/{DATASET_FILE}: {reason(error)}")
                refuse_missing_remote_descriptions([folder], options)
            else:
                found.append(folder)
        if found:
            return found
    raise UserError(
        f"{url} holds no {DATASET_FILE} ({failures[0]}), and neither do its folders"
        f" {', '.join(f'{split}/' for split in _ORDER)}: name a folder written by latentscale shards"
        " build, or fix its permissions"
    )
