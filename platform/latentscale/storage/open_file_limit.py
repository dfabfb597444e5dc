"""How many files a process may have open: every shard that is read, or will be soon, is one."""

import contextlib
import errno

from latentscale.errors import UserError

# more than any window of shards needs; where the hard limit is "unlimited", some systems refuse to be asked for that
_MOST = 2**16
_WITHOUT_LIMITS = 512


def raise_open_file_limit() -> int:
    """Raise this process's limit as far as it may; what it is then."""
    try:
        import resource
    except ImportError:  # Windows
        return _WITHOUT_LIMITS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = _MOST if hard == unlimited else min(hard, _MOST)
    if soft != unlimited and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST if soft == unlimited else min(soft, _MOST)


def is_open_file_limit(error: BaseException | None) -> bool:
    """Whether a failure says that this process, or the machine, has too many files open."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def open_file_limit_error(location: str) -> UserError:
    """What to do about it."""
    return UserError(
        f"{location} cannot be opened (too many open files): raise the limit (ulimit -n), lower"
        " data.shuffle_window_images, or build larger shards"
    )


def read_error(location: str, error: OSError) -> UserError:
    """Why a shard of this machine cannot be read, and what to do."""
    if is_open_file_limit(error):
        return open_file_limit_error(location)
    return UserError(f"{location} cannot be read ({error.strerror}): copy the shard again")
