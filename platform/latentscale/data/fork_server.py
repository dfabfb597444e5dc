"""Loaded into the server process from which worker processes are forked; does nothing in any other process.

A signal sent to a whole process group or job step (Ctrl-C, Slurm, a supervisor) would end the server, and its
workers with it, while the main process still writes its checkpoint. So the server ignores it and ends, as
always, when its last client has gone. Having torch loaded here once makes a worker start in milliseconds
instead of seconds.
"""

import os
import signal
import sys


def _is_fork_server() -> bool:
    return any("multiprocessing.forkserver" in argument for argument in sys.orig_argv)


if _is_fork_server():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Other users of the same server expect their children to be terminable: only our workers decide
    # otherwise.
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    # The server ignores SIGINT by itself, but only once its modules are loaded, and then restores what it
    # found.
    found = signal.signal(signal.SIGINT, signal.SIG_IGN)
    import latentscale.data.loader  # noqa: F401

    signal.signal(signal.SIGINT, found)
