"""The end of a process that has trained beside others."""

import atexit
import os
import sys
from typing import NoReturn


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
