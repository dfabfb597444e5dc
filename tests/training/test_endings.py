"""How a run ends is told to whoever started it: by the exit status, and by the word each process leaves."""

import signal
import sys
from pathlib import Path

import pytest

from latentscale.launching.endings import FOLDER_VARIABLE, Ending, ProcessEnding, joint_ending, read_endings
from launching import ROOT, Processes, Train, overrides

pytestmark = pytest.mark.processes
RECIPE = ROOT / "recipes" / "pvdgan.py"


def test_what_the_processes_of_a_node_say_together() -> None:
    def words(*kinds: Ending) -> list[ProcessEnding]:
        return [ProcessEnding(rank, kind) for rank, kind in enumerate(kinds)]

    assert joint_ending(words(Ending.FINISHED, Ending.FINISHED), 2) == Ending.FINISHED
    assert joint_ending(words(Ending.STOPPED, Ending.STOPPED), 2) == Ending.STOPPED
    assert joint_ending(words(Ending.STOPPED), 2) == Ending.LOST  # one was killed
    assert joint_ending(words(Ending.LOST, Ending.REFUSED), 2) == Ending.REFUSED
    assert joint_ending(words(Ending.FINISHED, Ending.STOPPED), 2) == Ending.LOST
    assert joint_ending([], 1) == Ending.LOST


@pytest.mark.parametrize("how", ["finishes", "is stopped", "is refused"])
def test_a_run_leaves_word_of_its_end(how: str, processes: Processes, tmp_path: Path) -> None:
    folder, words = tmp_path / "run", tmp_path / "words"
    settings = {
        "finishes": overrides(training__steps=2),
        "is stopped": overrides(training__steps=100_000, checkpoint__every_steps=0),
        "is refused": overrides(training__batch=33),
    }[how]
    process = processes.start(
        [sys.executable, str(RECIPE), f"run.dir={folder}", *settings], **{FOLDER_VARIABLE: str(words)}
    )
    if how == "is stopped":
        metrics = folder / "metrics.jsonl"
        while not (metrics.exists() and metrics.read_text()):
            assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    (ending,) = read_endings(words)
    if how == "finishes":
        assert (process.returncode, ending) == (0, ProcessEnding(0, Ending.FINISHED, 2)), err
    elif how == "is stopped":
        assert (process.returncode, ending.ending) == (0, Ending.STOPPED), err
        assert f"stopped at step {ending.step:,}" in out
        assert (folder / "STOPPED").exists()
    else:
        assert (process.returncode, ending.ending) == (2, Ending.REFUSED)
        assert err == f"error: {ending.reason}\n"


def test_a_method_that_draws_no_pictures_ends_well(train: Train, tmp_path: Path) -> None:
    """The classifier neither generates nor inverts, so that its run's folder has no snapshots/."""
    finished = train("classifier", tmp_path / "run", training__steps=2)
    assert finished.err == ""
    assert "trained classifier for 2 steps" in finished.out
    assert "accuracy" in finished.out
    assert "pictures" not in finished.out
    assert not (tmp_path / "run" / "snapshots").exists()
