"""A run whose disk stays full is restarted up to the limit, ends with one line, and continues once there is room."""

from pathlib import Path

import pytest
from nodes import Nodes, until
from small_disk import SmallDisk

from launching import Processes, Train, overrides, slowed_script

STEPS = 20
SETTINGS: dict[str, object] = {"training__steps": STEPS, "checkpoint__every_steps": 5}
pytestmark = pytest.mark.processes


def test_a_disk_that_stays_full_is_given_up_after_the_restarts(
    small_disk: SmallDisk, processes: Processes, train: Train, tmp_path: Path
) -> None:
    small_disk.resize(2**21)
    folder, script = small_disk.path / "run", slowed_script(tmp_path / "slow.py", "pvdgan")
    nodes = Nodes(processes, 1, interpreters=True)
    nodes.start([str(script), f"run.dir={folder}", *overrides(**SETTINGS)], {"max-restarts": 1, "pause-seconds": 0.2})
    kept = folder / "checkpoints" / "step-000000005"
    until(kept.exists)
    # room for a start, but not for a checkpoint
    ballast = small_disk.fill(leave_bytes=sum(path.stat().st_size for path in kept.iterdir()) // 2)
    codes, outputs = nodes.wait()
    assert codes == [1], outputs
    assert "Traceback" not in outputs[0]
    again, last = [line for line in outputs[0].splitlines() if line.startswith("launcher: ")]
    for line in (again, last):
        assert "No space left on device" in line
        assert "make room there" in line
    assert again.endswith("restarting in 0.2 s (restart 1 of 1)")
    assert last == outputs[0].splitlines()[-1]
    assert last.endswith("giving up after 1 restart; run the same command to continue from the last checkpoint")
    ballast.unlink()
    train("pvdgan", folder, **SETTINGS)
    assert sorted(path.name for path in kept.parent.glob("step-*"))[-1] == f"step-{STEPS:09d}"
