"""Exit codes of processes before their parent reaps them."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from latentscale.launching.process_tree import watch_exits
from skipping import needs_linux


@needs_linux
@pytest.mark.parametrize("lacking", [False, True], ids=["with pidfd", "by polling"])
def test_exit_codes_are_reported_before_processes_are_reaped(lacking: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if lacking:
        monkeypatch.delattr(os, "pidfd_open")
    acts = ["import sys; sys.exit(3)", "import os; os.kill(os.getpid(), 9)", "import time; time.sleep(60)"]
    children = [subprocess.Popen([sys.executable, "-c", act]) for act in acts]
    reported: dict[int, int] = {}
    try:
        watch_exits({rank: psutil.Process(child.pid) for rank, child in enumerate(children)}, reported.__setitem__)
        deadline = time.monotonic() + 30
        while len(reported) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert reported == {0: 3, 1: -signal.SIGKILL}
        children[2].terminate()
        while len(reported) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert reported[2] == -signal.SIGTERM
    finally:
        for child in children:
            child.kill()
            child.wait()
