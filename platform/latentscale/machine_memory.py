"""How much memory this machine gives its processes."""

import resource
from contextlib import suppress
from pathlib import Path

import psutil

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine_memory(processes: int = 1) -> int:
    """How many bytes the processes of this machine may use: its memory and swap, or a limit of the system below.

    Args:
        processes: how many share the machine; each of them has the limit that the system sets for a process.
    """
    swap = psutil.swap_memory().total
    found = [psutil.virtual_memory().total + swap]
    for path in _CGROUP_LIMITS:
        # absent outside of Linux, "max" without a limit
        with suppress(OSError, ValueError):
            found.append(int(path.read_text()) + swap)
    if (limit := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
        found.append(processes * limit)
    return min(found)


def bytes_in_words(size_bytes: int) -> str:
    """``1.5 GiB``."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:,.1f} {unit}"
    return f"{size_bytes / 2**20:,.1f} MiB"
