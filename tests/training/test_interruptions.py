"""Killed, stopped and rerun: the result equals the uninterrupted run, and no kill costs a whole checkpoint."""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from states import bitwise_equal, final_state, worst_difference
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from launching import ROOT, Processes, Train, accelerate_command, launch_command, overrides

STEPS = 40
TRAIN = [sys.executable, "-m", "latentscale", "train", "pvdgan"]
SETTINGS = {"training__steps": STEPS, "checkpoint__every_steps": 4, "training__report_every_steps": 1}

pytestmark = pytest.mark.processes


def steps_of(folder: Path) -> list[int]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines if "discriminator/adversarial" in line]


def wait_for_step(folder: Path, step: int, process) -> None:
    """Until the run has reported a step; a run that ends before fails the test."""
    deadline = time.monotonic() + 60
    metrics = folder / "metrics.jsonl"
    while time.monotonic() < deadline:
        if metrics.exists() and metrics.read_text().count('{"step"') >= step:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    raise AssertionError(f"step {step} was not reached")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    command = [*launch_command(1, ROOT / "recipes" / "pvdgan.py"), f"run.dir={folder}", *overrides(**SETTINGS)]
    # an interpreter of its own, with a hash seed of its own: forked runs share theirs
    finished = Processes().run(command, interpreter=True)
    assert finished.code == 0, finished.err
    return folder


@pytest.mark.parametrize("seed", [1, 2])
def test_kill_9_at_a_random_step_and_rerun(
    seed: int, uninterrupted: Path, processes: Processes, train: Train, tmp_path: Path
) -> None:
    step = random.Random(seed).randrange(5, STEPS - 8)
    command = [*launch_command(1, ROOT / "recipes" / "pvdgan.py"), f"run.dir={tmp_path}", *overrides(**SETTINGS)]
    process = processes.start(command)
    wait_for_step(tmp_path, step, process)
    processes.end(process)  # SIGKILL
    assert process.returncode == -signal.SIGKILL
    train("pvdgan", tmp_path, **SETTINGS)
    assert bitwise_equal(final_state(tmp_path), final_state(uninterrupted))
    # each step is told once, in order, as if nothing had happened
    assert steps_of(tmp_path) == list(range(1, STEPS + 1))


def test_kill_9_of_two_processes_and_rerun(
    uninterrupted: Path, processes: Processes, train: Train, tmp_path: Path
) -> None:
    command = [*launch_command(2, ROOT / "recipes" / "pvdgan.py"), f"run.dir={tmp_path}", *overrides(**SETTINGS)]
    process = processes.start(command)
    wait_for_step(tmp_path, 7, process)
    processes.end(process)  # what launched them, and both
    train("pvdgan", tmp_path, 2, **SETTINGS)
    assert worst_difference(final_state(tmp_path), final_state(uninterrupted)) <= 1e-9


def test_what_was_logged_after_the_checkpoint_is_cut(train: Train, tmp_path: Path) -> None:
    settings = {**SETTINGS, "telemetry__tensorboard": "true", "training__steps": 10}
    train("pvdgan", tmp_path, **settings)
    shutil.rmtree(tmp_path / "checkpoints" / "step-000000010")  # as if killed between two checkpoints
    train("pvdgan", tmp_path, **{**settings, "training__steps": 12})
    assert steps_of(tmp_path) == list(range(1, 13))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("generator/encoder")] == list(range(1, 13))


@pytest.mark.parametrize("moment", ["tensors half written", "before the rename", "after the rename"])
def test_a_kill_during_a_checkpoint_leaves_the_one_before_whole(
    moment: str, uninterrupted: Path, processes: Processes, train: Train, tmp_path: Path
) -> None:
    broken = {
        "tensors half written": """
def save_file(tensors, path):
    whole(tensors, path)
    if "step-000000008" in str(path):
        data = open(path, "rb").read()
        open(path, "wb").write(data[: len(data) // 2])
        os.kill(os.getpid(), 9)
whole, checkpoints.save_file = checkpoints.save_file, save_file
""",
        "before the rename": """
def rename(self, target):
    if "step-000000008" in str(target):
        os.kill(os.getpid(), 9)
    return whole(self, target)
whole, pathlib.Path.rename = pathlib.Path.rename, rename
""",
        "after the rename": """
def rename(self, target):
    whole(self, target)
    if "step-000000008" in str(target):
        os.kill(os.getpid(), 9)
whole, pathlib.Path.rename = pathlib.Path.rename, rename
""",
    }[moment]
    recipe = ROOT / "recipes" / "pvdgan.py"
    script = tmp_path / "broken.py"
    script.write_text(
        f"import os, pathlib, runpy, sys\nfrom latentscale.training import checkpoints\n{broken}\n"
        f"runpy.run_path({str(recipe)!r}, run_name='__main__')\n"
    )
    folder = tmp_path / "run"
    finished = processes.run([*launch_command(1, script), f"run.dir={folder}", *overrides(**SETTINGS)])
    assert finished.code == -signal.SIGKILL, finished.err
    expected = {"after the rename": ["step-000000004", "step-000000008"]}.get(moment, ["step-000000004"])
    assert sorted(path.name for path in (folder / "checkpoints").glob("step-*")) == expected
    rerun = train("pvdgan", folder, **{**SETTINGS, "telemetry__progress": "true"})
    assert f"from step {int(expected[-1][5:])}" in rerun.err
    assert bitwise_equal(final_state(folder), final_state(uninterrupted))
    assert not list((folder / "checkpoints").glob(".*"))


@pytest.mark.parametrize(
    "started", [launch_command(1, ROOT / "recipes" / "pvdgan.py"), TRAIN], ids=["script", "module"]
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_one_process_with_a_checkpoint(
    number: signal.Signals,
    started: list[str],
    uninterrupted: Path,
    processes: Processes,
    train: Train,
    tmp_path: Path,
) -> None:
    settings = {**SETTINGS, "checkpoint__every_steps": 0}
    command = [*started, f"run.dir={tmp_path}", *overrides(**settings)]
    process = processes.start(command)
    wait_for_step(tmp_path, 5, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "run the same command to continue" in out
    assert 5 <= steps_of(tmp_path)[-1] < STEPS
    train("pvdgan", tmp_path, **settings)
    assert bitwise_equal(final_state(tmp_path), final_state(uninterrupted))


@pytest.mark.parametrize("how", ["SIGTERM to the launcher", "Ctrl-C"])
def test_a_signal_stops_both_processes_after_the_same_step(
    how: str, uninterrupted: Path, processes: Processes, train: Train, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "checkpoint__every_steps": 0}
    command = [*accelerate_command(2, ROOT / "recipes" / "pvdgan.py"), f"run.dir={tmp_path}", *overrides(**settings)]
    process = processes.start(command)
    wait_for_step(tmp_path, 5, process)
    if how == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)  # a terminal tells the whole group, and the launcher tells it again
    else:
        process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert "run the same command to continue" in out
    stopped = steps_of(tmp_path)[-1]
    assert 5 <= stopped < STEPS
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"step-{stopped:09d}"]
    train("pvdgan", tmp_path, 2, **settings)
    assert worst_difference(final_state(tmp_path), final_state(uninterrupted)) <= 1e-9


def test_a_finished_run_rerun_changes_nothing(uninterrupted: Path, train: Train) -> None:
    before = {path: path.read_bytes() for path in uninterrupted.rglob("*.safetensors")}
    lines = (uninterrupted / "metrics.jsonl").read_text()
    train("pvdgan", uninterrupted, **SETTINGS)
    assert {path: path.read_bytes() for path in uninterrupted.rglob("*.safetensors")} == before
    assert (uninterrupted / "metrics.jsonl").read_text() == lines


def test_a_longer_run_continues_the_shorter_one(uninterrupted: Path, train: Train, tmp_path: Path) -> None:
    train("pvdgan", tmp_path, **{**SETTINGS, "training__steps": 13})
    train("pvdgan", tmp_path, **SETTINGS)
    assert bitwise_equal(final_state(tmp_path), final_state(uninterrupted))


def test_a_changed_setting_is_refused_and_restart_moves_the_run_aside(train: Train, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train("pvdgan", folder, training__steps=2)
    refused = train("pvdgan", folder, check=False, training__steps=2, method__r1=9)
    assert refused.code == 2
    assert "method.r1" in refused.err
    assert "Traceback" not in refused.err
    assert len(refused.err.strip().splitlines()) == 1
    train("pvdgan", folder, training__steps=2, method__r1=9, run__restart="true")
    assert (tmp_path / "run.old-1" / "model" / "config.json").is_file()
