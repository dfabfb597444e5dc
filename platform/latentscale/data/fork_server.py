"""Preloaded into the server process that forks the worker processes; does nothing in any other process.

A signal sent to a whole process group or job step (Ctrl-C, Slurm, a supervisor) would end the server, and its
workers with it, while the main process still writes its checkpoint. So the server ignores signals; it ends, as
usual, when its last client disconnects. Because torch is loaded here once, a worker starts in milliseconds
instead of seconds.
"""

import os
import signal
import sys


def _is_fork_server() -> bool:
    return any("multiprocessing.forkserver" in argument for argument in sys.orig_argv)


if _is_fork_server():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Other users of the same server expect that they can terminate their children; our workers ignore
    # SIGTERM themselves.
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    # The server ignores SIGINT itself, but only after its modules are loaded. Then it restores the handler it
    # found.
    found = signal.signal(signal.SIGINT, signal.SIG_IGN)
    import latentscale.data.loader  # noqa: F401

    signal.signal(signal.SIGINT, found)
