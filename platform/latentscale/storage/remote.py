"""Files behind a URL, read through fsspec: s3://, gs://, http(s)://, file:// and others."""

import asyncio
import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from latentscale.errors import Interruption, UserError
from latentscale.storage.dataset_files import DATASET_FILE, StorageOptions
from latentscale.storage.open_file_limit import is_open_file_limit, open_file_limit_error
from latentscale.storage.retrying import is_local_disk_error, is_transient, retry
from latentscale.storage.urls import check_url
from latentscale.wording import escaped, without_passwords

T = TypeVar("T")

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}

_POLL_SECONDS = 0.2
_LOG_EVERY_SECONDS = 60.0
_log = logging.getLogger(__name__)


def is_remote(path: Path | str) -> bool:
    """Return whether a path is a URL."""
    return "://" in str(path)


class Remote:
    """A folder behind a URL; reads whole files and ranges, and retries failed requests.

    Args:
        url: the folder's URL.
        options: how long failing requests are retried, and when a transfer counts as stalled.

    Raises:
        UserError: the URL is not supported, or the package for it is not installed.
    """

    def __init__(self, url: str, options: StorageOptions) -> None:
        check_url(url, options.path_prefix)
        self.url = url.rstrip("/")
        self._options = options
        self._reset()
        _ = self._files

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._opened: tuple[Any, str] | None = None
        self._logged_at = -_LOG_EVERY_SECONDS
        self._supports_ranges: bool | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "_options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    @property
    def _files(self) -> tuple[Any, str]:
        """The file system and the folder's path in it."""
        with self._lock:
            if self._opened is None:
                self._opened = _connect(self.url, self._options.path_prefix)
            return self._opened

    def location(self, name: str) -> str:
        """Return the full name of a file, for messages."""
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes:
        """Read a small file; raises FileNotFoundError, PermissionError, or UserError for other failures."""
        return self._try(name, lambda files, path: self._wait(files, "cat_file", path))

    def read_range(self, name: str, size: int, offset: int) -> bytes | None:
        """Read a range of a file; None if the server supports no range requests or the range is cut short."""

        def attempt(files: Any, path: str) -> bytes | None:
            if self._supports_ranges is None:
                # a web server may return the whole file instead, so a small file is tried first
                small = f"{path.rpartition('/')[0]}/{DATASET_FILE}"
                self._supports_ranges = len(self._wait(files, "cat_file", small, start=0, end=1)) == 1
            if not self._supports_ranges:
                return None
            found: bytes = self._wait(files, "cat_file", path, start=offset, end=offset + size)
            return found if len(found) == size else None

        return self._try(name, attempt)

    def names(self) -> list[str]:
        """List the folder; returns no names if it does not exist or the remote supports no listing.

        Raises:
            UserError: the remote does not respond.
        """

        def attempt(files: Any, path: str) -> list[str]:
            try:
                found: list[str] = self._wait(files, "ls", path, detail=False)
            except (NotImplementedError, NotADirectoryError):
                return []
            return [name.rstrip("/").rpartition("/")[2] for name in found]

        try:
            return self._try("", attempt)
        except (FileNotFoundError, PermissionError):
            return []

    def download(self, name: str, to: Path, retrying: bool = True) -> None:
        """Download a file to ``to``; a failed attempt leaves nothing that a later one would keep.

        Args:
            name: the file's name in the folder.
            to: the path to write.
            retrying: whether to retry for ``retry_seconds``; otherwise the download is tried once.
        """

        def attempt(files: Any, path: str) -> None:
            # a new file each time: an abandoned attempt may still write to the old one
            to.unlink(missing_ok=True)
            self._wait(files, "get_file", path, str(to), arrived_bytes=lambda: _size(to))

        self._try(name, attempt, retrying)

    def _try(self, name: str, attempt: Callable[[Any, str], T], retrying: bool = True) -> T:
        files, folder = self._files
        try:
            return retry(
                lambda: attempt(files, f"{folder}/{name}"),
                self._options.retry_seconds if retrying else 0.0,
                lambda error, left: self._log_retry(name, error, left),
            )
        except (UserError, FileNotFoundError, PermissionError):
            raise
        except OSError as error:
            if is_local_disk_error(error):
                raise
            if is_open_file_limit(error):
                raise open_file_limit_error(self.location(name)) from error
            raise self._fetch_error(name, error) from error
        except Exception as error:
            if getattr(error, "status", None) in (401, 403):
                raise PermissionError(reason(error)) from error
            raise self._fetch_error(name, error) from error

    def _fetch_error(self, name: str, error: Exception) -> UserError:
        transient = is_transient(error)
        tried = f" for {self._options.retry_setting}" if transient else ""
        remedy = "data.path, then run the same command to continue" if self._options.has_keys else "the URL"
        return (Interruption if transient else UserError)(
            f"{self.location(name)} cannot be fetched{tried} ({reason(error)}): fix the connection or {remedy}"
        )

    def _log_retry(self, name: str, error: BaseException, left_seconds: float) -> None:
        """Log at most once a minute why a request is retried."""
        with self._lock:
            now = time.monotonic()
            if now - self._logged_at < _LOG_EVERY_SECONDS:
                return
            self._logged_at = now
        _log.warning(
            "%s cannot be fetched (%s): retrying for another %.0f s",
            escaped(without_passwords(self.location(name))),
            escaped(reason(error)),
            left_seconds,
        )

    def _wait(
        self, files: Any, call: str, *arguments: Any, arrived_bytes: Callable[[], int] | None = None, **named: Any
    ) -> Any:
        """Call a method of the file system and return its result; raises TimeoutError if the call stalls."""
        if not files.async_impl:
            return getattr(files, call)(*arguments, **named)
        coroutine: Coroutine[Any, Any, Any] = getattr(files, f"_{call}")(*arguments, **named)
        future = asyncio.run_coroutine_threadsafe(coroutine, files.loop)
        # each poll counts for a bounded time: while the process is suspended, arriving bytes go unnoticed
        seen, silent_seconds, looked_at = -1, 0.0, time.monotonic()
        while not concurrent.futures.wait([future], timeout=_POLL_SECONDS).done:
            before, looked_at = looked_at, time.monotonic()
            silent_seconds += min(looked_at - before, 2 * _POLL_SECONDS)
            if arrived_bytes and (arrived := arrived_bytes()) != seen:
                seen, silent_seconds = arrived, 0.0
            if silent_seconds > self._options.stall_seconds:
                future.cancel()
                limit = self._options.stall_setting
                # a read into memory shows no partial progress: a slow remote may have sent some bytes
                raise TimeoutError(f"no bytes for {limit}" if arrived_bytes else f"no complete response within {limit}")
        return future.result()


def reason(error: BaseException) -> str:
    """Return an error's message in one line."""
    return without_passwords(" ".join(str(error).split())) or type(error).__name__


def _connect(url: str, named: str) -> tuple[Any, str]:
    import fsspec

    protocol = urlsplit(url).scheme.split("::")[-1]
    try:
        files, folder = fsspec.url_to_fs(url, **_settings(protocol))
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        remedy = (
            f"pip install 'latentscale[{extra}]'"
            if extra
            else f"install the package that fsspec names ({reason(error)})"
        )
        raise UserError(f"{named}{url} needs a package that is not installed: {remedy}") from error
    except MemoryError:
        raise
    except Exception as error:  # some file systems connect immediately, and raise errors of their own
        raise UserError(
            f"{named}{url} cannot be read ({reason(error)}): use s3://, gs://, http(s)://, file:// or a folder"
        ) from error
    return files, str(folder).rstrip("/")


def _settings(protocol: str) -> dict[str, Any]:
    """Return fsspec's configuration without a limit on the total time of a transfer, because shards are large."""
    if protocol not in ("http", "https"):
        return {}
    import aiohttp
    import fsspec.config

    configured = fsspec.config.conf.get(protocol, {}).get("client_kwargs", {})
    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=30.0), **configured}}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
