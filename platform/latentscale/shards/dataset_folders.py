"""Which folders below a path, on this machine or behind a URL, are datasets: one, or a split each."""

from pathlib import Path

from latentscale.errors import UserError
from latentscale.storage.dataset_files import DATASET_FILE, StorageOptions
from latentscale.storage.remote import Remote, is_remote, reason

_ORDER = ("train", "val", "test")


def dataset_folders(path: Path | str, options: StorageOptions | None = None) -> list[Path | str]:
    """The folders with a dataset.json: the given one, or those right below it, train first.

    Args:
        path: a folder, or a URL, below which only train/, val/ and test/ are looked for: web servers list nothing.
        options: of trying again, needed for URLs.

    Raises:
        UserError: there is none.
    """
    if is_remote(path):
        assert options is not None
        return list(_remote_folders(str(path).rstrip("/"), options))
    folder = Path(path)
    if (folder / DATASET_FILE).is_file():
        return [folder]
    found = [one for one in folder.iterdir() if (one / DATASET_FILE).is_file()] if folder.is_dir() else []
    if not found:
        raise UserError(f"{path} holds no {DATASET_FILE}: name a folder written by latentscale shards build")
    found.sort(key=lambda one: (_ORDER.index(one.name) if one.name in _ORDER else len(_ORDER), one.name))
    return list(found)


def folder_name(path: Path | str) -> str:
    """The last part of a folder's path or URL, by which a split is called."""
    return str(path).rstrip("/").rpartition("/")[2] or str(path)


def _remote_folders(url: str, options: StorageOptions) -> list[str]:
    tried = []
    for folders in ((url,), tuple(f"{url}/{split}" for split in _ORDER)):
        found = []
        for folder in folders:
            try:
                Remote(folder, options).read(DATASET_FILE)
            except (FileNotFoundError, PermissionError) as error:
                tried.append(f"{folder}/{DATASET_FILE}: {reason(error)}")
            else:
                found.append(folder)
        if found:
            return found
    raise UserError(
        f"{url} holds no {DATASET_FILE} ({tried[0]}), nor do its folders {', '.join(f'{split}/' for split in _ORDER)}:"
        " name a folder written by latentscale shards build, or mend its permissions"
    )
