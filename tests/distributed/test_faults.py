"""Failures of processes, disks and data during a run: each with real processes, and each run continues afterwards.

Where no step was skipped, what the run becomes in the end equals an uninterrupted run's. The same with whole nodes and
their links is in tests/multinode.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from small_disk import SmallDisk
from states import bitwise_equal, final_state, worst_difference
from torch import Tensor

from latentscale.launching.exit_reports import FOLDER_VARIABLE, ExitReason, read_exit_reports
from launching import ROOT, Processes, Train, accelerate_command, free_port, launch_command, overrides, slowed_script

TOLERANCE = 1e-9
STEPS = 40
PHASE_SECONDS = 0.045  # a run then takes as long as what a test does in the meantime, and seconds more
RECIPE = ROOT / "recipes" / "pvdgan.py"
SETTINGS: dict[str, object] = {
    "training__steps": STEPS,
    "checkpoint__every_steps": 5,
    "training__report_every_steps": 1,
    "distributed__heartbeat_seconds": 0.4,
    "distributed__timeout_seconds": 5,
    "distributed__divergence_every_steps": 3,
    # otherwise a run without a launcher would end before a test can reach it
    "telemetry__progress": "true",
}
pytestmark = pytest.mark.processes


def start(
    processes: Processes, folder: Path, count: int, lines: str = "", **changes: object
) -> list[subprocess.Popen[str]]:
    script = slowed_script(folder.with_suffix(".py"), "pvdgan", lines, PHASE_SECONDS)
    command = [sys.executable, str(script), f"run.dir={folder}", *overrides(**{**SETTINGS, **changes})]
    return processes.start_ranks(count, command) if count > 1 else [processes.start(command)]


def wait_for_step(folder: Path, step: int, started: list[subprocess.Popen[str]]) -> None:
    """Wait until the run has reported a step; a run that ends before fails the test."""
    metrics, deadline = folder / "metrics.jsonl", time.monotonic() + 90
    while time.monotonic() < deadline:
        if metrics.exists() and metrics.read_text().count('{"step"') >= step:
            return
        for process in started:
            assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not reached")


def ends(started: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit status and standard error of each."""
    found = []
    for process in started:
        _, err = process.communicate(timeout=60)
        found.append((process.returncode, err))
    return found


def errors(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("error: ")]


def newest_checkpoint(folder: Path) -> int:
    return max(int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    command = [*launch_command(1, RECIPE), f"run.dir={folder}", *overrides(**SETTINGS)]
    # an interpreter of its own, with a hash seed of its own: forked runs share theirs
    finished = Processes().run(command, interpreter=True)
    assert finished.code == 0, finished.err
    return final_state(folder)


@pytest.mark.parametrize(("count", "victim"), [(4, 3), (2, 0)])
def test_after_kill_9_the_others_name_the_process_and_half_as_many_continue(
    count: int, victim: int, uninterrupted: dict[str, Tensor], processes: Processes, train: Train, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    started = start(processes, folder, count)
    wait_for_step(folder, 7, started)
    started[victim].kill()
    named = "rank 0 is unreachable" if victim == 0 else f"no heartbeat from rank {victim} on"
    speaker = 1 if victim == 0 else 0  # what all processes of a node say is said by one
    for rank, (code, err) in enumerate(ends(started)):
        if rank != victim:
            assert code == 75, err
            assert [named in line for line in errors(err)] == ([True] if rank == speaker else []), err
            assert "frame #" not in err
    assert newest_checkpoint(folder) >= 5
    train("pvdgan", folder, count // 2, **SETTINGS)
    assert worst_difference(final_state(folder), uninterrupted) <= TOLERANCE


def test_a_stopped_process_is_named_and_the_run_continues(
    uninterrupted: dict[str, Tensor], processes: Processes, train: Train, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    started = start(processes, folder, 2)
    wait_for_step(folder, 7, started)
    started[1].send_signal(signal.SIGSTOP)
    _, err = started[0].communicate(timeout=60)
    assert started[0].returncode == 75, err
    assert len(errors(err)) == 1
    assert "no heartbeat from rank 1 on" in errors(err)[0]
    started[1].kill()
    train("pvdgan", folder, 2, **SETTINGS)
    assert worst_difference(final_state(folder), uninterrupted) <= TOLERANCE


def test_a_process_that_hangs_is_named_by_those_that_wait_for_it_and_the_run_continues(
    uninterrupted: dict[str, Tensor], processes: Processes, train: Train, tmp_path: Path
) -> None:
    lines = """
from latentscale.training.feed import Feed
fetch = Feed.fetch
def hang(self, step):
    if RANK == "1" and step == 8:
        time.sleep(60)
    return fetch(self, step)
Feed.fetch = hang
"""
    folder = tmp_path / "run"
    started = start(processes, folder, 2, lines, distributed__timeout_seconds=4)
    _, err = started[0].communicate(timeout=60)
    assert started[0].returncode == 75, err
    assert "(last at step 8, data) did not join a collective that the others waited in" in errors(err)[0]
    started[1].kill()
    assert newest_checkpoint(folder) == 5
    train("pvdgan", folder, 1, **SETTINGS)
    assert worst_difference(final_state(folder), uninterrupted) <= TOLERANCE


def test_a_nan_on_one_process_for_too_long_ends_all_with_the_name_of_the_term(
    processes: Processes, tmp_path: Path
) -> None:
    lines = """
from latentscale.losses import inversion
from latentscale.methods import pvdgan
calls = []  # one in each phase of a step: every other one is in the discriminator phase
def poisoned(*args):
    calls.append(1)
    value = inversion.scaled_latent_mse(*args)
    return value * float("nan") if RANK == "1" and len(calls) % 2 else value
pvdgan.scaled_latent_mse = poisoned
"""
    started = start(processes, tmp_path / "run", 2, lines, training__max_nonfinite_steps=3)
    (code, err), (other, _) = ends(started)
    assert (code, other) == (2, 2), err
    assert "3 steps in a row were not finite and were skipped (discriminator/encoder)" in errors(err)[0]
    assert "lower optimizer.learning_rate" in errors(err)[0]


WEIGHT_DIFFERS = """
import torch
from latentscale.training.ema import WeightAverage
update, calls = WeightAverage.update, []
def flip(self, apply):
    update(self, apply)
    calls.append(1)
    if RANK == "2" and len(calls) == 7:
        next(self.networks["generator"].parameters()).view(torch.int64).view(-1)[0] ^= 1
WeightAverage.update = flip
"""
VARIANCE_DIFFERS = """
import torch
from latentscale.distributed.statistics import FusedStatistics
finish, calls = FusedStatistics.finish, []
def flip(self, apply):
    flags = finish(self, apply)
    calls.append(1)
    if RANK == "2" and len(calls) == 7:
        self.statistics["variance"].variance.view(torch.int64).view(-1)[0] ^= 1
    return flags
FusedStatistics.finish = flip
"""


@pytest.mark.parametrize("lines", [WEIGHT_DIFFERS, VARIANCE_DIFFERS], ids=["a weight", "the variance"])
def test_a_bit_that_differs_ends_the_run_naming_the_process(lines: str, processes: Processes, tmp_path: Path) -> None:
    started = start(
        processes, tmp_path / "run", 3, lines, distributed__streams=12, training__batch=48, checkpoint__every_steps=0
    )
    found = ends(started)
    assert [code for code, _ in found] == [2, 2, 2], found[0][1]
    assert "after step 9 rank 2 has different weights or statistics" in errors(found[0][1])[0]
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


DATA_FAIL = """
from latentscale.data.memory_cache import MemoryCachedReader
from latentscale.errors import UserError
block = MemoryCachedReader.block
def read(self, steps):
    if RANK == "1" and WHEN in steps:
        raise UserError("shard-000003.tar member 7 is not a readable image")
    return block(self, steps)
MemoryCachedReader.block = read
from latentscale.training.run_writer import RunWriter
write = RunWriter.write_last_checkpoint
def slowly(self, *arguments, **named):
    time.sleep(WRITES_SECONDS)
    write(self, *arguments, **named)
RunWriter.write_last_checkpoint = slowly
"""


# the step before a checkpoint, and the last one; a disk that takes longer than a collective may
@pytest.mark.parametrize(("when", "writes_seconds"), [(9, 8), (STEPS - 1, 0)])
def test_data_that_fail_on_one_process_cost_no_step(
    when: int, writes_seconds: int, uninterrupted: dict[str, Tensor], processes: Processes, train: Train, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    lines = DATA_FAIL.replace("WHEN", str(when)).replace("WRITES_SECONDS", str(writes_seconds))
    started = start(processes, folder, 2, lines)
    (code, err), (other, _) = ends(started)
    assert (code, other) == (2, 2), err
    assert errors(err) == [
        f"error: rank 1: shard-000003.tar member 7 is not a readable image (a checkpoint of step {when} was written)"
    ]
    assert newest_checkpoint(folder) == when
    train("pvdgan", folder, 1, **SETTINGS)
    assert worst_difference(final_state(folder), uninterrupted) <= TOLERANCE


def test_the_reason_is_printed_although_the_last_checkpoint_cannot_be_written(
    processes: Processes, tmp_path: Path
) -> None:
    lines = """
import errno
once = RunWriter._write
def full(self, checkpoint):
    if checkpoint.step == 9:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    once(self, checkpoint)
RunWriter._write = full
"""
    fails = DATA_FAIL.replace("WHEN", "9").replace("WRITES_SECONDS", "0")
    started = start(processes, tmp_path / "run", 2, fails + lines)
    (code, err), (other, _) = ends(started)
    assert (code, other) == (2, 2), err
    (line,) = errors(err)
    assert line.startswith(
        "error: rank 1: shard-000003.tar member 7 is not a readable image (the checkpoint of step 9 cannot be written"
    )
    assert "the last good one is step-000000005" in line


def test_pictures_and_evaluations_longer_than_the_timeout_delay_nobody(processes: Processes, tmp_path: Path) -> None:
    lines = """
from latentscale.training import model_outputs
evaluate = model_outputs.evaluate
def slowly(*args, **options):
    time.sleep(6)
    return evaluate(*args, **options)
model_outputs.evaluate = slowly
"""
    folder = tmp_path / "run"
    changes = {"evaluation__every_steps": 13, "distributed__timeout_seconds": 4, "snapshot__every_steps": 13}
    started = start(processes, folder, 2, lines, **changes)
    assert [code for code, _ in ends(started)] == [0, 0]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    evaluated = [record["step"] for record in records if any(name.startswith("evaluation/") for name in record)]
    # pictures that would delay the training too long are left out
    assert evaluated == [13, STEPS]
    assert (folder / "snapshots" / "samples-000000013.png").exists()


def test_sigterm_twice_makes_one_checkpoint_and_reports_a_stop(
    uninterrupted: dict[str, Tensor], processes: Processes, train: Train, tmp_path: Path
) -> None:
    # processors may differ in the last bit of the initial state: all start from rank 0's
    lines = """
import torch
from latentscale.training import components
build = components.build_method
def nudge(plan):
    method = build(plan)
    if RANK == "1":
        next(method.networks["generator"].parameters()).data.mul_(1 + 1e-6)
    return method
components.build_method = nudge
"""
    folder = tmp_path / "run"
    started = start(processes, folder, 2, lines, checkpoint__every_steps=0)
    wait_for_step(folder, 6, started)
    for _ in range(2):
        started[1].send_signal(signal.SIGTERM)  # to one of them only
        time.sleep(0.02)
    assert [code for code, _ in ends(started)] == [0, 0]
    step = newest_checkpoint(folder)
    assert (folder / "STOPPED").read_text().startswith(f"stopped at step {step} ")
    train("pvdgan", folder, 2, **SETTINGS)
    assert not (folder / "STOPPED").exists()
    assert worst_difference(final_state(folder), uninterrupted) <= TOLERANCE


def test_a_disk_that_is_full_costs_checkpoints_but_not_the_run(
    small_disk: SmallDisk, uninterrupted: dict[str, Tensor], processes: Processes, tmp_path: Path
) -> None:
    folder = small_disk.path / "run"
    small_disk.resize(2**21)
    started = start(processes, folder, 1, snapshot__every_steps=15)
    wait_for_step(folder, 8, started)
    ballast = small_disk.fill(leave_bytes=0)
    time.sleep(0.3)  # one that was written already may still get its name
    kept = newest_checkpoint(folder)
    time.sleep(1.2)
    assert newest_checkpoint(folder) == kept
    ballast.unlink()
    ((code, err),) = ends(started)
    assert code == 0, err
    warnings = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert any(
        "No space left on device" in line and f"the last good one is step-{kept:09d}" in line for line in warnings
    )
    assert newest_checkpoint(folder) == STEPS
    assert bitwise_equal(final_state(folder), uninterrupted)
    # lines that could not be written then were written later
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "images" in record] == list(range(1, STEPS + 1))


def test_a_disk_that_is_full_at_the_end_keeps_the_last_good_checkpoint(
    small_disk: SmallDisk, uninterrupted: dict[str, Tensor], processes: Processes, train: Train, tmp_path: Path
) -> None:
    folder = small_disk.path / "run"
    small_disk.resize(2**21)
    started = start(processes, folder, 1)
    wait_for_step(folder, 8, started)
    ballast = small_disk.fill(leave_bytes=0)
    time.sleep(0.3)  # one that was written already may still get its name
    kept = newest_checkpoint(folder)
    ((code, err),) = ends(started)
    assert code == 75, err
    assert f"the checkpoint of step {STEPS} cannot be written to" in errors(err)[0]
    assert f"the last good one is step-{kept:09d}" in errors(err)[0]
    assert "Traceback" not in err
    ballast.unlink()
    train("pvdgan", folder, **SETTINGS)
    assert bitwise_equal(final_state(folder), uninterrupted)


def test_a_disk_that_turns_read_only_costs_checkpoints_but_not_the_run(
    small_disk: SmallDisk, uninterrupted: dict[str, Tensor], processes: Processes, tmp_path: Path
) -> None:
    folder = small_disk.path / "run"
    small_disk.resize(2**21)
    # the loop holds files open for writing, so that the mount cannot turn read-only by itself: a read-only one over it
    started = start(processes, folder, 1)
    wait_for_step(folder, 8, started)
    subprocess.run(["mount", "--bind", str(folder / "checkpoints"), str(folder / "checkpoints")], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", str(folder / "checkpoints")], check=True)
    kept = newest_checkpoint(folder)
    time.sleep(1.2)
    subprocess.run(["umount", str(folder / "checkpoints")], check=True)
    ((code, err),) = ends(started)
    assert code == 0, err
    assert any("Read-only file system" in line for line in err.splitlines() if line.startswith("warning: "))
    assert newest_checkpoint(folder) == STEPS > kept
    assert bitwise_equal(final_state(folder), uninterrupted)


def test_a_disk_that_is_full_at_the_start_is_an_interruption(
    small_disk: SmallDisk, train: Train, tmp_path: Path
) -> None:
    ballast = small_disk.fill(leave_bytes=0)
    full = train("pvdgan", small_disk.path / "run", check=False, **SETTINGS)
    assert full.code == 75, full.err
    assert "No space left on device" in errors(full.err)[0]
    assert "make room there" in errors(full.err)[0]
    assert "Traceback" not in full.err
    ballast.unlink()
    small_disk.resize(2**21)
    train("pvdgan", small_disk.path / "run", **{**SETTINGS, "training__steps": 2})


def test_a_configuration_that_is_removed_costs_nothing(
    uninterrupted: dict[str, Tensor], processes: Processes, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    started = start(processes, folder, 1)
    wait_for_step(folder, 8, started)
    (folder / "config.yaml").unlink()
    ((code, err),) = ends(started)
    assert code == 0, err
    assert "warning: " not in err
    assert (folder / "config.yaml").exists()
    assert bitwise_equal(final_state(folder), uninterrupted)


def test_a_signal_while_waiting_for_other_processes_is_a_stop(processes: Processes, tmp_path: Path) -> None:
    words = tmp_path / "words"
    command = [sys.executable, str(RECIPE), f"run.dir={tmp_path / 'run'}", *overrides(**SETTINGS)]
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    process = processes.start(command, **alone, MASTER_PORT=str(free_port()), **{FOLDER_VARIABLE: str(words)})
    time.sleep(12)  # it has started, and waits for the other
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert "stopped before the first step" in out
    assert [report.reason for report in read_exit_reports(words)] == [ExitReason.STOPPED]


def test_torchs_own_restart_continues_the_run(
    uninterrupted: dict[str, Tensor], processes: Processes, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    command = accelerate_command(2, slowed_script(folder.with_suffix(".py"), "pvdgan", "", PHASE_SECONDS))
    command[command.index("--num_machines") : command.index("--num_machines")] = ["--max_restarts", "1"]
    process = processes.start([*command, f"run.dir={folder}", *overrides(**SETTINGS)])
    wait_for_step(folder, 8, [process])
    workers = [child for child in psutil.Process(process.pid).children() if child.environ().get("RANK") == "1"]
    workers[0].kill()
    _, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert worst_difference(final_state(folder), uninterrupted) <= TOLERANCE


def test_a_folder_that_is_deleted_is_created_again(
    uninterrupted: dict[str, Tensor], processes: Processes, train: Train, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    started = start(processes, folder, 1)
    wait_for_step(folder, 8, started)
    folder.rename(tmp_path / "elsewhere")
    ((code, err),) = ends(started)
    assert code == 0, err
    assert bitwise_equal(final_state(folder), uninterrupted)
    train("pvdgan", folder, **SETTINGS)  # a run as any other
    assert (folder / "config.yaml").exists()


def test_a_second_run_on_the_folder_is_refused_by_its_lock(processes: Processes, train: Train, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    started = start(processes, folder, 1, training__steps=100_000, checkpoint__every_steps=0)
    wait_for_step(folder, 3, started)
    second = train("pvdgan", folder, check=False, **SETTINGS)
    assert second.code == 2
    assert "is in use by another run" in second.err
    started[0].send_signal(signal.SIGTERM)
    assert [code for code, _ in ends(started)] == [0]
