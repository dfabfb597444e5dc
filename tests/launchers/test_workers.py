"""How processes ended, before their parent forgets it."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from latentscale.launching.workers import tell_exits


@pytest.mark.skipif(sys.platform != "linux", reason="the parent reads /proc")
@pytest.mark.parametrize("lacking", [False, True], ids=["by the kernel's word", "by looking"])
def test_exits_are_told_while_nobody_has_reaped_them(lacking: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if lacking:
        monkeypatch.delattr(os, "pidfd_open")
    acts = ["import sys; sys.exit(3)", "import os; os.kill(os.getpid(), 9)", "import time; time.sleep(60)"]
    children = [subprocess.Popen([sys.executable, "-c", act]) for act in acts]
    told: dict[int, int] = {}
    try:
        tell_exits({rank: psutil.Process(child.pid) for rank, child in enumerate(children)}, told.__setitem__)
        deadline = time.monotonic() + 30
        while len(told) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert told == {0: 3, 1: -signal.SIGKILL}
        children[2].terminate()
        while len(told) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert told[2] == -signal.SIGTERM
    finally:
        for child in children:
            child.kill()
            child.wait()
