"""A dataset's folder behind a URL, read directly, without the node's cache."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from latentscale.errors import UserError
from latentscale.storage.dataset_files import DATASET_FILE, StorageOptions, StoredFile
from latentscale.storage.range_stream import RANGE_BYTES, RangeStream
from latentscale.storage.remote import Remote


class UncachedFolder:
    """Reads a remote folder without caching; can be pickled to worker processes.

    Args:
        url: the folder's URL.
        options: retry settings; those of the cache are not used.

    Raises:
        UserError: the URL is not supported, or the package for it is not installed.
    """

    def __init__(self, url: str, options: StorageOptions) -> None:
        self._remote = Remote(url, options)
        self.path: Path | str = self._remote.url

    def location(self, name: str) -> str:
        """See Folder."""
        return self._remote.location(name)

    def description(self) -> str:
        """See Folder."""
        return self.read_file(DATASET_FILE).decode("utf-8")

    def read_file(self, name: str) -> bytes:
        """Read a small file; raises FileNotFoundError, PermissionError or UserError if that fails."""
        return self._remote.read(name)

    @contextmanager
    def stream(self, file: StoredFile) -> Iterator[BinaryIO]:
        """Open a file of any size for one pass from beginning to end.

        A file of the expected size is read in ranges, two of which are in memory. A file of another size, or from a
        server without range requests, is downloaded to a temporary file.
        """
        assert file.bytes is not None
        first = self._remote.read_range(file.name, min(RANGE_BYTES, file.bytes), 0)
        # two bytes from the last one on: None means that exactly one is there, so the size is as expected
        if first is not None and self._remote.read_range(file.name, 2, file.bytes - 1) is None:
            yield io.BufferedReader(RangeStream(lambda *place: self._range(file, *place), file.bytes, first))
            return
        with tempfile.TemporaryDirectory(prefix="latentscale-") as folder:
            path = Path(folder) / file.name
            self._remote.download(file.name, path)
            with path.open("rb") as stream:
                yield stream

    def _range(self, file: StoredFile, size: int, offset: int) -> bytes:
        found = self._remote.read_range(file.name, size, offset)
        if found is None:
            raise UserError(f"{self.location(file.name)} is shorter than its size in {DATASET_FILE}: upload it again")
        return found
