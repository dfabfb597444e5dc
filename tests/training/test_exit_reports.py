"""A run reports how it ended by its exit status, and by each process's exit report."""

import signal
import sys
from pathlib import Path

import pytest

from documents import run_folder_rows
from latentscale.launching.exit_reports import (
    FOLDER_VARIABLE,
    ExitReason,
    ExitReport,
    combine_exit_reasons,
    read_exit_reports,
)
from latentscale.methods.registry import METHODS
from latentscale.recipe import print_outcome
from latentscale.shell_command import shell_command
from latentscale.training.loop import Outcome
from launching import ROOT, Processes, Train, overrides

pytestmark = pytest.mark.processes
RECIPE = ROOT / "recipes" / "pvdgan.py"


def test_the_exit_reasons_of_a_node_are_combined() -> None:
    def reports(*reasons: ExitReason) -> list[ExitReport]:
        return [ExitReport(rank, reason) for rank, reason in enumerate(reasons)]

    assert combine_exit_reasons(reports(ExitReason.FINISHED, ExitReason.FINISHED), 2) == ExitReason.FINISHED
    assert combine_exit_reasons(reports(ExitReason.STOPPED, ExitReason.STOPPED), 2) == ExitReason.STOPPED
    assert combine_exit_reasons(reports(ExitReason.STOPPED), 2) == ExitReason.FAILED  # one was killed
    assert combine_exit_reasons(reports(ExitReason.FAILED, ExitReason.USER_ERROR), 2) == ExitReason.USER_ERROR
    assert combine_exit_reasons(reports(ExitReason.FINISHED, ExitReason.STOPPED), 2) == ExitReason.FAILED
    assert combine_exit_reasons([], 1) == ExitReason.FAILED


@pytest.mark.parametrize("how", ["finishes", "is stopped", "is refused"])
def test_a_run_writes_an_exit_report(how: str, processes: Processes, tmp_path: Path) -> None:
    folder, reports = tmp_path / "run", tmp_path / "reports"
    settings = {
        "finishes": overrides(training__steps=2),
        "is stopped": overrides(training__steps=100_000, checkpoint__every_steps=0),
        "is refused": overrides(training__batch=33),
    }[how]
    process = processes.start(
        [sys.executable, str(RECIPE), f"run.dir={folder}", *settings], **{FOLDER_VARIABLE: str(reports)}
    )
    if how == "is stopped":
        metrics = folder / "metrics.jsonl"
        while not (metrics.exists() and metrics.read_text()):
            assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    (report,) = read_exit_reports(reports)
    if how == "finishes":
        assert (process.returncode, report) == (0, ExitReport(0, ExitReason.FINISHED, 2)), err
    elif how == "is stopped":
        assert (process.returncode, report.reason) == (0, ExitReason.STOPPED), err
        assert f"stopped at step {report.step:,}" in out
        assert "STOPPED" in run_folder_rows(folder)
    else:
        assert (process.returncode, report.reason) == (2, ExitReason.USER_ERROR)
        assert err == f"error: {report.message}\n"


def test_a_method_that_draws_no_pictures_ends_well(train: Train, tmp_path: Path) -> None:
    """The classifier neither generates nor inverts, so that its run's folder has no snapshots/."""
    finished = train("classifier", tmp_path / "run", training__steps=2)
    assert finished.err == ""
    assert "trained classifier for 2 steps" in finished.out
    assert "accuracy" in finished.out
    assert "pictures" not in finished.out
    assert not (tmp_path / "run" / "snapshots").exists()


@pytest.mark.parametrize("name", ["vanilla", "pvdgan", "classifier", "autoencoder"])
def test_a_method_without_an_encoder_is_said_to_have_none(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_outcome(Outcome(4, True, tmp_path, {"real_images": 2, "held_out": 1}), METHODS[name])
    out = capsys.readouterr().out
    assert ("this method has no encoder" in out) is (name == "vanilla")
    following = f"next:     {shell_command('invert', tmp_path)} IMAGE…\n"
    assert out.endswith(following) is METHODS[name].inverts
