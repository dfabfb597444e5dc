"""A forked process ends as a process of its own does."""

import sys

import pytest

from launching import Processes

PROGRAMS = {
    "nothing": "pass",
    "a status": "import sys; sys.exit(3)",
    "a negative status": "import sys; print('unfinished line', end=''); sys.exit(-1)",
    "a message": "import sys; sys.exit('text')",
    "an error": "import atexit; atexit.register(print, 'at exit'); 1 / 0",
    "Ctrl-C": "raise KeyboardInterrupt",
    "a signal": "import os; os.kill(os.getpid(), 15)",
    "a closed output": "import sys; sys.stdout.close()",
    "a thread that still runs": (
        "import threading, time\ndef later():\n    time.sleep(0.2)\n    print('later')\n"
        "threading.Thread(target=later).start()\nprint('first', flush=True)"
    ),
    "an output that nobody can take": "import os; print('text'); os.dup2(os.open('/dev/full', os.O_WRONLY), 1)",
    "daemon threads": "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_the_end_is_that_of_a_process_of_its_own(program: str, processes: Processes) -> None:
    forked, own = (processes.run([sys.executable, "-c", program], interpreter=each) for each in (False, True))
    assert (forked.code, forked.out) == (own.code, own.out)
    # the interpreter says more of an output that failed
    assert forked.err == own.err or own.code == 120
