"""Several processes begin, skip and end together, and an error on one of them is printed once, with its rank."""

from pathlib import Path

import pytest
from states import bitwise_equal, final_state, worst_difference

from launching import ROOT, Finished, Processes, Train, launch_command, overrides

pytestmark = pytest.mark.processes


def run_with(patch: str, folder: Path, processes: Processes, count: int = 2, **changes: object) -> Finished:
    """PVDGAN on several processes after running some lines in each."""
    script, recipe = folder.with_suffix(".py"), ROOT / "recipes" / "pvdgan.py"
    script.write_text(
        f"import os, runpy, sys\nRANK = os.environ['RANK']\n{patch}\n"
        f"if __name__ == '__main__':\n    runpy.run_path({str(recipe)!r}, run_name='__main__')\n"
    )
    return processes.run(
        [*launch_command(count, script), f"run.dir={folder}", *overrides(**changes)], timeout_seconds=90
    )


def errors(finished: Finished) -> list[str]:
    return [line for line in finished.err.splitlines() if line.startswith("error: ")]


REFUSALS = {
    "data missing on one rank": (
        """
from latentscale.errors import UserError
from latentscale.training import checks
whole = checks.open_dataset
def open_dataset(*args):
    if RANK == "1":
        raise UserError("data.path=/nowhere is not a folder")
    return whole(*args)
checks.open_dataset = open_dataset
""",
        "rank 1: data.path=/nowhere is not a folder",
    ),
    "other data on one rank": (
        """
from latentscale.training.plan import RunPlan
if RANK == "1":
    RunPlan.identity = lambda self: {"method": self.method.name, "data": "other"}
""",
        "the data of rank 1 differs from rank 0's",
    ),
    "another setting on one rank": (
        """
if RANK == "1":
    sys.argv.append("run.seed=5")
""",
        "the configuration of rank 1 differs from rank 0's",
    ),
    # once rank 1 has ended, the launcher stops rank 0
    "another setting, which rank 0 is slow to print": (
        """
import time
from latentscale.training import processes
whole = processes._end_training
def slowly(*args):
    if RANK == "0":
        time.sleep(0.6)
    whole(*args)
processes._end_training = slowly
if RANK == "1":
    sys.argv.append("run.seed=5")
""",
        "the configuration of rank 1 differs from rank 0's",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_an_error_on_one_rank_ends_all_with_one_line(what: str, processes: Processes, tmp_path: Path) -> None:
    patch, message = REFUSALS[what]
    finished = run_with(patch, tmp_path / "run", processes, training__steps=3)
    assert finished.code != 0
    assert [line for line in errors(finished) if message in line] == errors(finished)
    assert len(errors(finished)) == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_data_error_in_mid_run_is_reported_with_its_rank(processes: Processes, tmp_path: Path) -> None:
    patch = """
from latentscale.data.memory_cache import MemoryCachedReader
from latentscale.errors import UserError
whole = MemoryCachedReader.block
def read(self, steps):
    if RANK == "1" and 5 in steps:
        raise UserError("shard-000003.tar member 7 is not a readable image")
    return whole(self, steps)
MemoryCachedReader.block = read
"""
    finished = run_with(patch, tmp_path / "run", processes, training__steps=50, checkpoint__every_steps=2)
    assert finished.code != 0
    # the steps before it are kept, whatever checkpoint.every_steps is: see test_faults.py
    message = "rank 1: shard-000003.tar member 7 is not a readable image (a checkpoint of step 5 was written)"
    assert errors(finished) == [f"error: {message}"]
    assert (tmp_path / "run" / "checkpoints" / "step-000000005" / "state.json").is_file()


def test_a_nan_on_one_rank_skips_the_step_on_all(train: Train, processes: Processes, tmp_path: Path) -> None:
    patch = """
from latentscale.losses import inversion
from latentscale.methods import pvdgan
calls = []  # one in each phase of a step: the third is in the second step's discriminator phase
def poisoned(*args):
    calls.append(1)
    value = inversion.scaled_latent_mse(*args)
    return value * float("nan") if RANK == "1" and len(calls) == 3 else value
pvdgan.scaled_latent_mse = poisoned
"""
    train("pvdgan", tmp_path / "one", 2, training__steps=1)
    finished = run_with(patch, tmp_path / "two", processes, training__steps=2)
    assert finished.code == 0, finished.err
    assert bitwise_equal(final_state(tmp_path / "one"), final_state(tmp_path / "two"))


def test_two_compiled_processes_of_several_buckets_take_one_eager_ones_steps(train: Train, tmp_path: Path) -> None:
    # 160 channels fill more than DDP's first bucket of 1 MiB: Dynamo must not split the phase there
    wide = {"network__widths": "[160]", "network__base_width": 160, "training__steps": 2}
    train("pvdgan", tmp_path / "eager", 1, **wide)
    train("pvdgan", tmp_path / "compiled", 2, training__compile="aot_eager", **wide)
    assert worst_difference(final_state(tmp_path / "compiled"), final_state(tmp_path / "eager")) <= 1e-9
