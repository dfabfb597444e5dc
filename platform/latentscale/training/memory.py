"""Settings of the CPU memory allocator."""

import ctypes
import os
import sys
from contextlib import suppress

# mallopt's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD; 32 MiB is the most that it takes for the latter
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Make glibc keep the memory that a step frees for the next one, unless the environment sets this.

    By default glibc returns large blocks and the top of its heap to the system. A step on the CPU then spends up to a
    tenth of its time in having the same pages zeroed and mapped again.
    """
    if sys.platform != "linux" or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return
    with suppress(AttributeError):  # musl has no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_MMAP_THRESHOLD, 32 * 2**20)
