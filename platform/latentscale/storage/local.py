"""A dataset's folder on a local or mounted file system."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from latentscale.errors import UserError
from latentscale.regular_files import file_status
from latentscale.storage.dataset_files import (
    DATASET_FILE,
    MakeRoom,
    OpenFile,
    StoredFile,
    nothing_to_release,
)


class LocalFolder:
    """A dataset's folder on a local or mounted file system; see Folder.

    Args:
        path: the folder.
        skip_damaged: whether ``check`` accepts missing and truncated files.
    """

    remote = False

    def __init__(self, path: Path, skip_damaged: bool = False) -> None:
        self.path: Path | str = path
        self._folder = path
        self._skip_damaged = skip_damaged

    def location(self, name: str) -> str:
        """See Folder."""
        return str(self._folder / name)

    def description(self) -> str:
        """See Folder."""
        return self.read_file(DATASET_FILE).decode("utf-8")

    def read_file(self, name: str) -> bytes:
        """Read a small file; raises OSError if that fails."""
        path = self._folder / name
        file_status(path)
        return path.read_bytes()

    def check(self, files: Iterable[StoredFile]) -> None:
        """See Folder."""
        for file in () if self._skip_damaged else files:
            path = self._folder / file.name
            try:
                size = file_status(path).st_size
            except OSError as error:
                raise UserError(
                    f"{path} cannot be read ({error.strerror}): copy it again or rebuild the dataset"
                ) from error
            if file.bytes is not None and size != file.bytes:
                raise UserError(
                    f"{path} has {size} bytes instead of {file.bytes}: copy it again or rebuild the dataset"
                )

    def open(self, file: StoredFile, hold: bool = False, make_room: MakeRoom = nothing_to_release) -> OpenFile:
        """See Folder; local files are never evicted, so ``hold`` and ``make_room`` are not used."""
        return OpenFile.of(self._folder / file.name)

    def open_ahead(self, file: StoredFile) -> OpenFile | None:
        """See Folder."""
        return self.open(file)

    def read_range(self, file: StoredFile, size: int, offset: int) -> bytes | None:
        """See Folder."""
        return self.open(file).read(size, offset)

    def stream(self, file: StoredFile) -> AbstractContextManager[BinaryIO]:
        """See Folder; raises OSError if the file cannot be opened."""
        path = self._folder / file.name
        file_status(path)
        return path.open("rb")
