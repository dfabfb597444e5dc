"""A process suspended for less than the timeout changes nothing; tests/multinode does this for links and nodes."""

import signal
import sys
import time
from pathlib import Path

import pytest
from nodes import until
from states import final_state, worst_difference

from launching import Processes, Train, overrides, slowed_script

TIMEOUT_SECONDS = 5
STEPS = 40
SETTINGS: dict[str, object] = {
    "training__steps": STEPS,
    "training__report_every_steps": 1,
    "checkpoint__every_steps": 0,
    "distributed__heartbeat_seconds": 0.4,
    "distributed__timeout_seconds": TIMEOUT_SECONDS,
    # write each line of metrics at once
    "telemetry__progress": "true",
}
pytestmark = pytest.mark.processes


def test_pauses_shorter_than_the_timeout_delay_the_run_and_change_nothing(
    processes: Processes, train: Train, tmp_path: Path
) -> None:
    folder, script = tmp_path / "run", slowed_script(tmp_path / "slow.py", "pvdgan")
    started = processes.start_ranks(2, [sys.executable, str(script), f"run.dir={folder}", *overrides(**SETTINGS)])
    metrics = folder / "metrics.jsonl"

    def steps() -> int:
        return metrics.read_text().count('{"step"') if metrics.exists() else 0

    for victim, step in ((1, 5), (0, 15)):
        until(lambda step=step: steps() >= step)
        started[victim].send_signal(signal.SIGSTOP)
        held = -1
        while held != (held := steps()):  # the other ends the step that it is in
            time.sleep(0.5)
        time.sleep(TIMEOUT_SECONDS / 3)
        assert steps() == held < STEPS
        started[victim].send_signal(signal.SIGCONT)
    said = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert not [line for err in said for line in err.splitlines() if line.startswith(("error: ", "warning: "))]
    # an interpreter of its own, with a hash seed of its own: forked runs share theirs
    train("pvdgan", tmp_path / "whole", interpreter=True, **SETTINGS)
    assert worst_difference(final_state(folder), final_state(tmp_path / "whole")) <= 1e-9
