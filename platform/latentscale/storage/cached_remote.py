"""A dataset's folder behind a URL, with whole files cached on the node."""

import io
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from latentscale.errors import UserError
from latentscale.storage.dataset_files import (
    DATASET_FILE,
    MakeRoom,
    OpenFile,
    StorageOptions,
    StoredFile,
    nothing_to_release,
)
from latentscale.storage.node_cache import NodeCache, WrongChecksum
from latentscale.storage.open_file_limit import is_open_file_limit, open_file_limit_error
from latentscale.storage.range_stream import RANGE_BYTES, RangeStream
from latentscale.storage.remote import Remote, reason


class CachedFolder:
    """Reads a remote folder through the node's cache; see Folder.

    Args:
        url: the folder's URL.
        options: cache and retry settings.

    Raises:
        UserError: the URL is not supported, or the package for it is not installed.
    """

    remote = True

    def __init__(self, url: str, options: StorageOptions) -> None:
        self._remote = Remote(url, options)
        self.path: Path | str = self._remote.url
        self._options = options
        self._cache = NodeCache(options.cache_folder, options.cache_bytes)
        self._description: str | None = None

    def location(self, name: str) -> str:
        """See Folder."""
        return self._remote.location(name)

    def description(self) -> str:
        """See Folder; the text is fetched once."""
        if self._description is None:
            self._description = self._remote.read(DATASET_FILE).decode("utf-8")
        return self._description

    def check(self, files: Iterable[StoredFile]) -> None:
        """Do nothing: a file is checked after its download."""

    def open(self, file: StoredFile, hold: bool = False, make_room: MakeRoom = nothing_to_release) -> OpenFile:
        """See Folder."""
        opened = self._open(file, needed=True, hold=hold, make_room=make_room)
        assert opened is not None
        return opened

    def open_ahead(self, file: StoredFile) -> OpenFile | None:
        """See Folder."""
        return self._open(file, needed=False, hold=True)

    def read_range(self, file: StoredFile, size: int, offset: int) -> bytes | None:
        """See Folder."""
        if opened := self._cache.find(file):
            return opened.read(size, offset)
        return self._range(file, size, offset)

    def stream(self, file: StoredFile) -> AbstractContextManager[BinaryIO]:
        """See Folder; without range requests the whole file is cached first."""
        size = file.about_bytes if file.bytes is None else file.bytes
        opened = self._cache.find(file)
        first = None if opened or file.bytes is None else self._range(file, min(RANGE_BYTES, size), 0)
        if first is None:
            opened = opened or self.open(file)
            return os.fdopen(os.dup(opened.descriptor), "rb")

        def read_range(size: int, offset: int) -> bytes:
            found = self._range(file, size, offset)
            if found is None:
                raise UserError(
                    f"{self.location(file.name)} is shorter than its size in {DATASET_FILE}: upload it again"
                )
            return found

        return io.BufferedReader(RangeStream(read_range, size, first))

    def _range(self, file: StoredFile, size: int, offset: int) -> bytes | None:
        try:
            return self._remote.read_range(file.name, size, offset)
        except (FileNotFoundError, PermissionError) as error:
            raise self._remote_error(file, error) from error

    def _open(
        self, file: StoredFile, needed: bool, hold: bool, make_room: MakeRoom = nothing_to_release
    ) -> OpenFile | None:
        location = self.location(file.name)
        size = file.about_bytes if file.bytes is None else file.bytes
        if size > self._options.cache_bytes and not self._options.has_keys:
            raise UserError(
                f"{location} of {size} bytes is larger than the cache of {self._options.cache_bytes} bytes: copy the"
                " dataset to this machine and name its folder"
            )
        try:
            return self._cache.open(
                file, location, lambda path: self._remote.download(file.name, path, needed), needed, hold, make_room
            )
        except WrongChecksum:
            raise UserError(
                f"{location} is damaged (fetched twice, its SHA-256 is not the one in {DATASET_FILE}): upload it again"
            ) from None
        except (FileNotFoundError, PermissionError) as error:
            if error.filename and str(error.filename).startswith(str(self._options.cache_folder)):
                raise self._disk_error(error) from error
            raise self._remote_error(file, error) from error
        except OSError as error:
            raise (open_file_limit_error(location) if is_open_file_limit(error) else self._disk_error(error)) from error

    def _remote_error(self, file: StoredFile, error: OSError) -> UserError:
        location = self.location(file.name)
        return UserError(f"{location} cannot be fetched ({reason(error)}): upload it, or fix its permissions")

    def _disk_error(self, error: OSError) -> UserError:
        folder = self._options.cache_folder
        named, key = (f"data.cache_folder={folder}", "") if self._options.has_keys else (folder, ": LATENTSCALE_CACHE")
        return UserError(
            f"{named} cannot be written ({error.strerror or reason(error)}):"
            f" make room there, or use a folder with more space{key}"
        )
