"""How the process's allocator treats the memory of a step on the CPU."""

import ctypes
import os
import sys
from contextlib import suppress

# mallopt's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD; 32 MiB is the most that it takes for the latter
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Have glibc keep the memory that a step frees for the next one, unless the environment says otherwise.

    Left alone it gives blocks and the end of its heap back to the system, and a step on the CPU spends up to a tenth
    of its time on having the same pages zeroed and mapped again.
    """
    if sys.platform != "linux" or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return
    with suppress(AttributeError):  # musl has no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_MMAP_THRESHOLD, 32 * 2**20)
