"""The recorder learns everything that is to be told of a run, on every process, and the loop knows nothing of it."""

import ast
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from latentscale.config import Config, load_config
from latentscale.data.memory_cache import MemoryCachedReader
from latentscale.data.step_reader import Block
from latentscale.data.unreadable_samples import Skipped
from latentscale.errors import UserError
from latentscale.methods.pvdgan import PVDGAN
from latentscale.telemetry.run_log import MetricsFile
from latentscale.training import loop
from latentscale.training.recorder import Recorder
from latentscale.training.step import StepResult, take_step
from launching import ROOT, Processes, launch_command, overrides


class Noting(Recorder):
    """A caller's recorder, such as one that tells a tuner: it notes what it learns, and does what every one does."""

    def __init__(self, noted: list[tuple[Any, ...]], *arguments: Any) -> None:
        self.noted = noted
        self.evaluations: list[int] = []
        super().__init__(*arguments)

    def record(self, step: int, result: StepResult) -> None:
        self.noted.append(("step", step))
        super().record(step, result)

    def reported(self, step: int, record: Mapping[str, Any]) -> None:
        assert record["step"] == step
        assert record["generator/adversarial"] > 0
        self.noted.append(("report", step))
        super().reported(step, record)

    def evaluated(self, step: int, evaluation: Mapping[str, Any]) -> None:
        assert evaluation["real_images"] == 16
        self.evaluations.append(step)
        super().evaluated(step, evaluation)

    def draw_and_evaluate(self, step: int, pictures: bool, evaluation: bool) -> None:
        if pictures or evaluation:
            self.noted.append(("draw", step, pictures, evaluation))
        super().draw_and_evaluate(step, pictures, evaluation)

    def checkpoint(self, step: int, skipped: Sequence[Skipped]) -> None:
        self.noted.append(("checkpoint", step))
        super().checkpoint(step, skipped)

    def last_checkpoint(self, step: int, skipped: Sequence[Skipped]) -> Callable[[bool], None]:
        self.noted.append(("last checkpoint", step))
        return super().last_checkpoint(step, skipped)

    def finish(self, step: int, finished: bool) -> dict[str, Any] | None:
        self.noted.append(("finish", step, finished))
        return super().finish(step, finished)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.noted.append(("end", str(error) if error else None))
        super().__exit__(kind, error, trace)


def settings(folder: Path, **changes: object) -> Config:
    return load_config(PVDGAN.Settings, "pvdgan", {"preset": ""}, overrides(run__dir=folder, **changes))


def run(config: Config, should_stop: Callable[[], bool] = lambda: False) -> list[tuple[Any, ...]]:
    """What the recorder of a run in this process notes; evaluations, which a thread makes, at the end."""
    noted: list[tuple[Any, ...]] = []
    made: list[Noting] = []

    def make(*arguments: Any) -> Noting:
        made.append(Noting(noted, *arguments))
        return made[0]

    loop.train(config, PVDGAN, should_stop, make)
    return [*noted, *(("evaluated", step) for step in made[0].evaluations)]


@pytest.mark.slow
def test_a_callers_recorder_learns_of_every_step_report_checkpoint_and_the_end(tmp_path: Path) -> None:
    intervals: dict[str, object] = {
        "training__report_every_steps": 2, "checkpoint__every_steps": 3, "snapshot__every_steps": 2,
        "evaluation__every_steps": 4,
    }  # fmt: skip
    assert run(settings(tmp_path, training__steps=5, **intervals)) == [
        ("step", 1),
        ("step", 2), ("report", 2), ("draw", 2, True, False),
        ("step", 3), ("checkpoint", 3),
        ("step", 4), ("report", 4), ("draw", 4, True, True),
        ("step", 5), ("report", 5), ("last checkpoint", 5), ("finish", 5, True), ("end", None),
        ("evaluated", 4), ("evaluated", 5),
    ]  # fmt: skip
    # a finished run that is started again takes no step
    assert run(settings(tmp_path, training__steps=5, **intervals)) == [("finish", 5, True), ("end", None)]


@pytest.mark.slow
def test_it_learns_that_a_run_was_stopped(tmp_path: Path) -> None:
    asked = iter([False, True, True])
    noted = run(settings(tmp_path, training__steps=9), lambda: next(asked))
    assert noted[-4:] == [("report", 3), ("last checkpoint", 3), ("finish", 3, False), ("end", None)]


@pytest.mark.slow
def test_it_learns_why_a_run_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = MemoryCachedReader.block

    def fail(self: MemoryCachedReader, steps: range) -> Block:
        if 2 in steps:
            raise UserError("the third step's data are gone")
        return block(self, steps)

    monkeypatch.setattr(MemoryCachedReader, "block", fail)
    noted: list[tuple[Any, ...]] = []
    with pytest.raises(UserError, match="data are gone"):
        loop.train(settings(tmp_path, training__steps=9), PVDGAN, make_recorder=lambda *each: Noting(noted, *each))
    assert noted[-2:] == [
        ("last checkpoint", 2),
        ("end", "the third step's data are gone (a checkpoint of step 2 was written)"),
    ]


class Failing(Recorder):
    """A recorder that fails after it has opened everything."""

    def open(self) -> None:
        super().open()
        raise OSError("the port is taken")


@pytest.mark.slow
@pytest.mark.parametrize("fails", ["tensorboard", "a subclass"])
def test_a_recorder_that_cannot_start_closes_what_it_opened(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    close = MetricsFile.close
    monkeypatch.setattr(MetricsFile, "close", lambda self: (closed.append(1), close(self)))
    if fails == "tensorboard":
        (tmp_path / "tensorboard").write_text("not a folder")
        (tmp_path / "config.yaml").write_text("")  # else the folder is refused as no run's
        config = settings(tmp_path, training__steps=2, telemetry__tensorboard="true")
        with pytest.raises(UserError, match=r"tensorboard cannot be written .*: remove it"):
            loop.train(config, PVDGAN)
    else:
        with pytest.raises(OSError, match="port is taken"):
            loop.train(settings(tmp_path, training__steps=2), PVDGAN, make_recorder=Failing)
    assert closed == [1]
    # nothing holds the folder: the same command trains
    (tmp_path / "tensorboard").unlink(missing_ok=True)
    assert loop.train(settings(tmp_path, training__steps=2), PVDGAN).finished


TIMED = """
import json, os, sys
from pathlib import Path
from latentscale.config import load_config
from latentscale.distributed.exiting import exit_process
from latentscale.methods.pvdgan import PVDGAN
from latentscale.training.loop import train
from latentscale.training.recorder import Recorder

class Timed(Recorder):
    def __exit__(self, *error):
        (OUT / f"rank-{self.rank}.json").write_text(json.dumps(self._clock.read()))
        super().__exit__(*error)

OUT = Path(sys.argv[1])
train(load_config(PVDGAN.Settings, "pvdgan", {"preset": ""}, sys.argv[2:]), PVDGAN, make_recorder=Timed)
exit_process()
"""


@pytest.mark.processes
def test_every_process_keeps_its_own_timings_and_rank_0_alone_writes(processes: Processes, tmp_path: Path) -> None:
    script = tmp_path / "timed.py"
    script.write_text(TIMED)
    command = [part for part in launch_command(2, script) if not part.startswith("distributed.")]
    arguments = overrides(
        run__dir=tmp_path / "run", training__steps=4, training__report_every_steps=3, checkpoint__every_steps=2
    )
    finished = processes.run([*command, str(tmp_path), *arguments], PYTHONPATH=str(ROOT / "platform"))
    assert finished.code == 0, finished.err
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    for seconds in ranks:
        # of the time since the last report, whose own seconds it has read
        assert set(seconds) == {"checkpoint", "total"}
        assert 0 < seconds["checkpoint"] < seconds["total"]
    assert ranks[0] != ranks[1]
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [3, 4, 4]  # two reports and the evaluation, each once


def test_the_loop_and_the_step_stay_short_and_know_few_others() -> None:
    assert len(inspect.getsource(loop.train).splitlines()) < 110
    assert len(inspect.getsource(take_step).splitlines()) < 80
    source = inspect.getsource(loop)
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    assert len([node for node in imports if node.module and node.module.startswith("latentscale")]) <= 15
