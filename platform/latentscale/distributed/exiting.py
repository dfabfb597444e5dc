"""How a process exits after it has trained with others."""

import atexit
import os
import sys
from typing import NoReturn

from latentscale.distributed.topology import Topology
from latentscale.errors import INTERRUPTED_STATUS
from latentscale.launching.exit_reports import ExitReason, ExitReport, write_exit_report


def exit_process(status: int = 0) -> NoReturn:
    """Run the exit handlers, flush all output, and exit at once.

    DDP keeps its process group, and so gloo's threads, after ``destroy_process_group``. The interpreter's normal exit
    then aborts now and then ("terminate called without an active exception"), and a finished run would be reported as
    failed.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def exit_interrupted(message: str, step: int, prints_message: bool) -> NoReturn:
    """Exit at once with status 75 while the main thread hangs in a collective; one process per node prints the message.

    Exit handlers do not run: they might need the main thread.
    """
    try:
        if prints_message:
            print(f"error: {message}; run the same command to continue", file=sys.stderr, flush=True)
        write_exit_report(ExitReport(Topology.from_environment().rank, ExitReason.FAILED, step, message))
        sys.stdout.flush()
    finally:  # even if nothing can be written any more
        os._exit(INTERRUPTED_STATUS)
