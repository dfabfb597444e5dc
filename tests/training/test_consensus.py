"""What processes agree on, in one process: when signals are read, which failure counts, what stands when a run ends."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from latentscale.config import load_config
from latentscale.data.unreadable_samples import Skipped
from latentscale.errors import Interruption, UserError
from latentscale.methods.pvdgan import PVDGAN
from latentscale.training import consensus as agreeing
from latentscale.training.consensus import LAST_WRITE_SECONDS, Consensus
from latentscale.training.step import StepResult
from launching import overrides

SAMPLE = Skipped(3, 7, "shard-000003.tar member 7 is not a readable image")


class Process:
    """A consensus of one process, with what it asks: the feed, the recorder and the user."""

    def __init__(self, folder: Path, **changes: object) -> None:
        arguments = overrides(run__dir=folder, training__steps=9, **changes)
        config = load_config(PVDGAN.Settings, "pvdgan", {"preset": ""}, arguments)
        self.warnings: list[str] = []
        self.newly_skipped: list[Skipped] = []
        self.asked_to_stop = False
        self.feed = SimpleNamespace(
            device=torch.device("cpu"), failure=None, steps_without_data=0, take_skipped=self._take_skipped
        )
        self.recorder = SimpleNamespace(
            rank=0, failure=None, warn=self.warnings.append, nonfinite_terms=lambda: ["generator/latent"]
        )
        self.monitor = SimpleNamespace(stuck_seconds=None)
        state: Any = SimpleNamespace(replicated=list)
        feed: Any = self.feed
        recorder: Any = self.recorder
        monitor: Any = self.monitor
        self.consensus = Consensus(config, state, [], feed, recorder, monitor, lambda: self.asked_to_stop)

    def _take_skipped(self) -> list[Skipped]:
        taken, self.newly_skipped = self.newly_skipped, []
        return taken

    def step(self, skip: float = 0.0, at_once: bool = False) -> bool:
        """One step with the signals of this process; whether the run ends after it."""
        stop, skipped = self.consensus.signals()
        signals = torch.tensor([float(stop), float(skipped)])
        self.consensus.settle(StepResult({}, torch.tensor(skip), signals), at_once)
        return self.consensus.stopping


def test_a_request_to_stop_is_read_one_step_late_and_before_a_checkpoint_at_once(tmp_path: Path) -> None:
    late, at_once = Process(tmp_path / "late"), Process(tmp_path / "at_once")
    assert not late.step()
    late.asked_to_stop = True
    assert [late.step(), late.step()] == [False, True]
    assert not at_once.step()
    at_once.asked_to_stop = True
    assert at_once.step(at_once=True)


def test_samples_that_are_skipped_are_named_once_and_too_many_end_the_run(tmp_path: Path) -> None:
    process = Process(tmp_path, data__on_error="skip", data__max_errors=1)
    process.newly_skipped = [SAMPLE, SAMPLE]
    assert not process.step(at_once=True)
    assert process.warnings == [f"skipped: {SAMPLE.reason}"]
    process.newly_skipped = [SAMPLE]
    assert not process.step(at_once=True)
    assert len(process.warnings) == 1
    process.newly_skipped = [SAMPLE._replace(member=8)]
    assert process.step(at_once=True)
    assert [sample.member for sample in process.consensus.skipped_samples()] == [7, 8]
    assert process.consensus.conclude(3) == 3
    with pytest.raises(
        UserError,
        match=r"^2 samples cannot be read.*: fix the data or raise.*\(a checkpoint of step 3 was written\)$",
    ):
        process.consensus.end(3, lambda stopped: None)


def test_steps_in_a_row_that_are_not_finite_end_the_run_naming_the_term(tmp_path: Path) -> None:
    process = Process(tmp_path, training__max_nonfinite_steps=2)
    # a finite step between them begins anew
    assert [process.step(skip) for skip in (1.0, 0.0, 1.0, 1.0)] == [False] * 4
    assert process.step(1.0)
    with pytest.raises(UserError, match=r"2 steps in a row were not finite and were skipped \(generator/latent\)"):
        process.consensus.end(5, lambda stopped: None)


def test_data_that_fail_count_for_more_than_the_steps_that_they_spoiled(tmp_path: Path) -> None:
    process = Process(tmp_path, training__max_nonfinite_steps=1)
    process.step()
    process.feed.failure, process.feed.steps_without_data = UserError("shard-000003.tar is gone"), 2
    process.step(skip=1.0)
    assert process.step(skip=1.0)
    assert process.consensus.conclude(3) == 1
    with pytest.raises(UserError, match=r"^shard-000003.tar is gone \(a checkpoint of step 1 was written\)$"):
        process.consensus.end(1, lambda stopped: None)


@pytest.fixture
def timeouts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every timeout that collectives were given."""
    given: list[float] = []
    monkeypatch.setattr(agreeing, "set_collective_timeout", given.append)
    return given


def failing_write(written: list[bool]) -> Callable[[bool], None]:
    def write(stopped: bool) -> None:
        written.append(stopped)
        raise Interruption("the checkpoint of step 1 cannot be written")

    return write


def test_a_failure_is_raised_once_the_last_write_is_over_however_long_it_takes(
    tmp_path: Path, timeouts: list[float]
) -> None:
    process = Process(tmp_path, distributed__timeout_seconds=30, distributed__heartbeat_seconds=2)
    process.step()
    assert timeouts == [30 + 4 * 2]
    process.step()
    assert len(timeouts) == 1
    process.recorder.failure = UserError("held-out data are damaged")
    process.consensus.conclude(2)
    written: list[bool] = []
    with pytest.raises(UserError, match=r"^held-out data are damaged \(a checkpoint of step 2 was written\)$"):
        process.consensus.end(2, lambda stopped: written.append(stopped or timeouts[-1] < LAST_WRITE_SECONDS))
    assert written == [False]


def test_why_a_run_ends_is_told_with_why_its_checkpoint_is_missing(tmp_path: Path) -> None:
    process, written = Process(tmp_path), []
    process.step()
    process.feed.failure = UserError("shard-000003.tar is gone")
    process.consensus.conclude(1)
    with pytest.raises(UserError, match=r"^shard-000003.tar is gone \(the checkpoint of step 1 cannot be written\)$"):
        process.consensus.end(1, failing_write(written))
    assert written == [False]


@pytest.mark.parametrize(("step", "stopped"), [(5, True), (9, False)])
def test_a_run_that_ends_well_writes_whether_it_was_stopped(step: int, stopped: bool, tmp_path: Path) -> None:
    process, written = Process(tmp_path), []
    process.step()
    assert process.consensus.conclude(step) == step
    process.consensus.end(step, written.append)
    assert written == [stopped]
    with pytest.raises(Interruption):
        process.consensus.end(step, failing_write(written))
