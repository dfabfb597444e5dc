"""Runs written by an earlier commit: today's code takes the same steps, continues them, and reads their models.

The stored folders and the commands that made them are `generate.py`'s.
"""

import json
import runpy
import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
from generate import HERE, MIDDLE, RUNS, STEPS, arguments, model_outputs
from safetensors.torch import load_file
from states import worst_difference
from torch import Tensor

from latentscale.config import load_config
from latentscale.methods.registry import METHODS
from latentscale.training.loop import train
from launching import ROOT

pytestmark = pytest.mark.slow

# Relative to the largest element of each tensor. The commit that wrote the runs is at most 3e-15 away from them on two
# processes, with AVX2 kernels, and with those of a CPU that lacks even AVX: the rest is room for sums in another order.
# The weight of one term that is wrong by a millionth of itself puts a run 1e-7 to 3e-6 away.
TOLERANCE = 1e-9
# numbers of the clock
TIMED = ("seconds/", "images_per_second")


def run_here(run: str, parent: Path) -> Path:
    """Run the stored command in this process, with the recipe's own defaults."""
    method = METHODS[RUNS[run][0]]
    script = ROOT / "recipes" / f"{RUNS[run][0]}.py"
    defaults = runpy.run_path(str(script))["DEFAULTS"]
    with chdir(parent):
        config = load_config(method.Settings, method.name, defaults, arguments(run), script.parent / "presets")
        assert train(config, method).finished
    return parent / run


def tensors(folder: Path, step: int) -> dict[str, Tensor]:
    """All tensors of a checkpoint."""
    return load_file(folder / "checkpoints" / f"step-{step:09d}" / "state.safetensors")


def last_numbers(folder: Path) -> dict[str, Any]:
    """The last report and the last evaluation of a run, without what the clock says and what is not defined (SSIM)."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    joined = {name: value for line in lines if line["step"] == STEPS for name, value in line.items()}
    return {name: value for name, value in joined.items() if value is not None and not name.startswith(TIMED)}


def assert_same_run(found: Path, stored: Path) -> None:
    """The last checkpoint, the last numbers and the model of two runs are equal to rounding."""
    ours, theirs = tensors(found, STEPS), tensors(stored, STEPS)
    assert {name: (each.dtype, each.shape) for name, each in ours.items()} == {
        name: (each.dtype, each.shape) for name, each in theirs.items()
    }
    assert worst_difference(ours, theirs) <= TOLERANCE
    numbers, expected = last_numbers(found), last_numbers(stored)
    assert {name: numbers.get(name) for name in expected} == pytest.approx(expected, rel=1e-7, abs=1e-9)
    for file in sorted((stored / "model").glob("*.safetensors")):
        torch.testing.assert_close(
            load_file(found / "model" / file.name), load_file(file), rtol=TOLERANCE, atol=TOLERANCE
        )


@pytest.mark.parametrize("run", RUNS)
def test_the_same_command_takes_the_same_steps_today(run: str, tmp_path: Path) -> None:
    found = run_here(run, tmp_path)
    assert worst_difference(tensors(found, MIDDLE), tensors(HERE / run, MIDDLE)) <= TOLERANCE
    assert_same_run(found, HERE / run)


@pytest.mark.parametrize("run", RUNS)
def test_the_same_command_continues_the_earlier_run(run: str, tmp_path: Path) -> None:
    found = shutil.copytree(HERE / run, tmp_path / run, ignore=shutil.ignore_patterns("model", f"step-*{STEPS}"))
    assert [path.name for path in (found / "checkpoints").iterdir()] == [f"step-{MIDDLE:09d}"]
    first_report = (HERE / run / "metrics.jsonl").read_text().splitlines()[0]
    run_here(run, tmp_path)
    assert_same_run(found, HERE / run)
    # of the stored numbers, those of the steps that were taken again are gone, the others kept
    lines = (found / "metrics.jsonl").read_text().splitlines()
    assert (lines[0], len(lines)) == (first_report, 3)


@pytest.mark.parametrize("run", RUNS)
def test_the_earlier_model_reads_and_maps_as_it_did(run: str) -> None:
    expected = load_file(HERE / run / "expected.safetensors")
    inputs = {name: tensor for name, tensor in expected.items() if "." not in name}
    found = model_outputs(HERE / run, inputs)
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_what_is_stored_can_tell_runs_apart() -> None:
    for run in RUNS:
        before, after = tensors(HERE / run, MIDDLE), tensors(HERE / run, STEPS)
        trained = [name for name in after if name.startswith("network/")]
        assert trained
        assert all(not torch.equal(before[name], after[name]) for name in trained)
    for run in ("cgpgan", "cgpgan-clusters"):
        before, after = (
            tensors(HERE / run, step)["statistic/category_prior/probabilities"] for step in (MIDDLE, STEPS)
        )
        assert (before - after).abs().max() > 1e-6
