"""Retrying requests to a remote: which failures are transient, and how long to wait between attempts."""

import errno
import random
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception
from tenacity.stop import stop_after_delay

from latentscale.errors import UserError
from latentscale.storage.open_file_limit import is_open_file_limit

T = TypeVar("T")

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0

_PERMANENT = (
    UserError,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    ImportError,
    TypeError,
    ValueError,
)
# by name, because the libraries that define them may not be installed
_PERMANENT_NAMES = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError")
_LOCAL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG)
_TRANSIENT_STATUSES = (408, 425, 429)
# not seeded: waits differ between processes, so that they do not all retry at the same moment
_jitter = random.SystemRandom()


def is_transient(error: BaseException) -> bool:
    """Return whether a failure may go away when the request is retried.

    Permanent failures are a missing file, refused permission, missing credentials, HTTP status 4xx other than 408, 425
    and 429, and a full disk or too many open files on this machine. All others are transient.
    """
    if not isinstance(error, Exception) or isinstance(error, _PERMANENT) or type(error).__name__ in _PERMANENT_NAMES:
        return False
    if is_local_disk_error(error) or is_open_file_limit(error):
        return False
    status = error.status if hasattr(error, "status") else getattr(error, "code", None)
    return not (isinstance(status, int) and 400 <= status < 500 and status not in _TRANSIENT_STATUSES)


def fetch_is_transient(error: BaseException) -> bool:
    """Return whether a failed fetch may succeed later; unlike :func:`is_transient`, also for local limits.

    A full disk and too many open files count as transient. An error's cause is judged in its place.
    """
    cause = error.__cause__ or error
    return is_transient(cause) or is_local_disk_error(cause) or is_open_file_limit(cause)


def is_local_disk_error(error: BaseException) -> bool:
    """Return whether an error means that the local disk cannot be written."""
    return isinstance(error, OSError) and error.errno in _LOCAL_DISK


def retry(function: Callable[[], T], seconds: float, failed: Callable[[BaseException, float], None]) -> T:
    """Return ``function()``, calling it again after each transient failure.

    Waits are drawn uniformly between 0 and a bound that doubles from 0.5 s to 30 s (exponential backoff with full
    jitter).

    Args:
        function: one attempt.
        seconds: no attempt starts later than this after the first.
        failed: called after each transient failure with the error and the remaining seconds.

    Raises:
        Exception: the last failure, unchanged.
    """

    def left_seconds(state: RetryCallState) -> float:
        return max(0.0, seconds - (state.seconds_since_start or 0.0))

    def wait_seconds(state: RetryCallState) -> float:
        bound = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(state.attempt_number - 1, 16))
        return min(_jitter.uniform(0.0, bound), left_seconds(state))

    def announce(state: RetryCallState) -> None:
        assert state.outcome is not None
        error = state.outcome.exception()
        assert error is not None
        failed(error, left_seconds(state))

    return Retrying(
        retry=retry_if_exception(is_transient),
        stop=stop_after_delay(seconds),
        wait=wait_seconds,
        before_sleep=announce,
        reraise=True,
    )(function)
