"""The limit of open files of a process: each shard that is read or prefetched needs one."""

import contextlib
import errno

from latentscale.errors import UserError

# more than any shuffle window needs; some systems refuse to set the soft limit to "unlimited"
_MAX = 2**16
_DEFAULT = 512


def raise_open_file_limit() -> int:
    """Raise this process's soft limit as far as allowed; returns the new limit."""
    try:
        import resource
    except ImportError:  # Windows
        return _DEFAULT
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = _MAX if hard == unlimited else min(hard, _MAX)
    if soft != unlimited and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MAX if soft == unlimited else min(soft, _MAX)


def is_open_file_limit(error: BaseException | None) -> bool:
    """Return whether an error means that this process or the machine has too many open files."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def open_file_limit_error(location: str) -> UserError:
    """Return the error for too many open files, with its remedy."""
    return UserError(
        f"{location} cannot be opened (too many open files): raise the limit (ulimit -n), lower"
        " data.shuffle_window_images, or build larger shards"
    )


def read_error(location: str, error: OSError) -> UserError:
    """Return the error for a local shard that cannot be read, with its remedy."""
    if is_open_file_limit(error):
        return open_file_limit_error(location)
    return UserError(f"{location} cannot be read ({error.strerror}): copy the shard again")
