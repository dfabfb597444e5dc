"""A dataset's folder behind a URL, read as it is there now: no copy in the node's cache answers for it."""

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
    """Reads a remote folder and keeps nothing; picklable to worker processes.

    Args:
        url: of the folder.
        options: of trying again; those of the cache are not used.

    Raises:
        UserError: the URL cannot be read by anything that is installed.
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
        """A small file; FileNotFoundError, PermissionError or UserError where it cannot be had."""
        return self._remote.read(name)

    @contextmanager
    def stream(self, file: StoredFile) -> Iterator[BinaryIO]:
        """A file from its beginning to its end, once, whatever size it has.

        In ranges, of which two are held, where it has the size that is known; of another size, or from a web server
        that gives no ranges, by way of a temporary file.
        """
        assert file.bytes is not None
        first = self._remote.read_range(file.name, min(RANGE_BYTES, file.bytes), 0)
        # the last byte is there by now or will be missed; one beyond it would make the file another
        if first is not None and self._remote.read_range(file.name, 2, file.bytes - 1) is None:
            yield io.BufferedReader(RangeStream(lambda *place: self._range(file, *place), file.bytes, first))
            return
        with tempfile.TemporaryDirectory(prefix="latentscale-") as folder:
            whole = Path(folder) / file.name
            self._remote.download(file.name, whole)
            with whole.open("rb") as stream:
                yield stream

    def _range(self, file: StoredFile, size: int, offset: int) -> bytes:
        found = self._remote.read_range(file.name, size, offset)
        if found is None:
            raise UserError(f"{self.location(file.name)} is shorter than {DATASET_FILE} says: upload it again")
        return found
