"""The end of a process that has trained beside others."""

import atexit
import os
import sys
from typing import NoReturn

from latentscale.distributed.topology import Topology
from latentscale.errors import INTERRUPTED_STATUS
from latentscale.launching.endings import Ending, ProcessEnding, tell_ending


def end_process(status: int = 0) -> NoReturn:
    """End at once, after what is registered to run at exit and with all output written.

    DDP holds its process group, and so gloo's threads, beyond ``destroy_process_group``. The interpreter's own end then
    aborts now and then ("terminate called without an active exception"), and a run that is finished would be reported
    as one that failed.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def end_interrupted(reason: str, step: int, says_it: bool) -> NoReturn:
    """End at once, while the main thread hangs in a collective: one line a node, and status 75.

    Nothing registered to run at exit is waited for: it might need the main thread.
    """
    try:
        if says_it:
            print(f"error: {reason}; run the same command to continue", file=sys.stderr, flush=True)
        tell_ending(ProcessEnding(Topology.from_environment().rank, Ending.LOST, step, reason))
        sys.stdout.flush()
    finally:  # also where nothing can be written any more
        os._exit(INTERRUPTED_STATUS)
