"""Trying again: which failures of a remote pass by themselves, and how long one waits for that."""

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

_LASTING = (
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
# by name: the libraries that raise them may not be installed
_LASTING_NAMES = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError")
_LOCAL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG)
_PASSING_STATUSES = (408, 425, 429)
# of its own, and different in every process: they must not all come back at the same moment
_jitter = random.SystemRandom()


def is_transient(error: BaseException) -> bool:
    """Whether a failure may be gone at the next attempt: everything but what is wrong by itself.

    Wrong by itself are a missing file, a refused permission, unknown credentials, other HTTP answers 4xx than 408, 425
    and 429, and a full disk or too many open files on this side.
    """
    if not isinstance(error, Exception) or isinstance(error, _LASTING) or type(error).__name__ in _LASTING_NAMES:
        return False
    if is_local_disk_error(error) or is_open_file_limit(error):
        return False
    status = error.status if hasattr(error, "status") else getattr(error, "code", None)
    return not (isinstance(status, int) and 400 <= status < 500 and status not in _PASSING_STATUSES)


def fetch_is_transient(error: BaseException) -> bool:
    """The same of what a failed fetch was told as: a full disk or too many open files, too, may be gone later."""
    cause = error.__cause__ or error
    return is_transient(cause) or is_local_disk_error(cause) or is_open_file_limit(cause)


def is_local_disk_error(error: BaseException) -> bool:
    """Whether a failure says that nothing more can be written here."""
    return isinstance(error, OSError) and error.errno in _LOCAL_DISK


def retry(act: Callable[[], T], seconds: float, failed: Callable[[BaseException, float], None]) -> T:
    """What ``act()`` returns, tried again after every failure that may pass.

    Waits are drawn between 0 and a bound that doubles from half a second to half a minute (exponential backoff with
    full jitter).

    Args:
        act: the attempt.
        seconds: no attempt begins later than this after the first.
        failed: told each passing failure and for how many more seconds it will be tried.

    Raises:
        Exception: the last failure, as itself.
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
    )(act)
