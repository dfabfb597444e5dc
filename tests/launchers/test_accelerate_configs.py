"""The Accelerate configurations, as accelerate reads them; those that a CPU can run are run."""

import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from launching import ROOT, Processes, overrides

FOLDER = ROOT / "launchers" / "accelerate"
RECIPE = str(ROOT / "recipes" / "pvdgan.py")
ACCELERATE = str(Path(sys.executable).with_name("accelerate"))
# machines, processes of the run, several processes, CPU, GPUs, port (0: a free one)
EXPECTED = {
    "cpu": (1, 2, True, True, "all", 0),
    "single_gpu": (1, 1, False, False, "0", None),
    "one_node": (1, 8, True, False, "all", 0),
    "many_nodes": (4, 32, True, False, "all", 29500),
}


def command(name: str) -> list[str]:
    """How the file's own head says it is launched."""
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    said = " ".join(line.lstrip("# ").rstrip("\\") for line in lines if line.startswith("#  "))
    parts = said.replace("HOST_OF_0", "head").replace("--machine_rank K", "--machine_rank 3").split()
    assert parts[:3] == ["accelerate", "launch", "--config_file"]
    return parts


@pytest.mark.parametrize("name", EXPECTED)
def test_what_accelerate_would_start(name: str) -> None:
    said = command(name)
    assert said[3] == f"launchers/accelerate/{name}.yaml"
    said[3] = str(ROOT / said[3])
    load_config_from_file(said[3])  # refuses unknown keys
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(said[2:]))
    assert (
        args.num_machines, args.num_processes, args.multi_gpu, bool(args.use_cpu), args.gpu_ids,
        args.main_process_port,
    ) == EXPECTED[name]  # fmt: skip
    assert args.mixed_precision == "no"
    if name == "many_nodes":
        assert (args.machine_rank, args.main_process_ip) == (3, "head")
    # the world size that a recipe is told to insist on is the one that is started
    assert f"distributed.processes={args.num_processes}" in args.training_script_args


def test_every_configuration_is_known() -> None:
    there = {path.stem for path in FOLDER.glob("*.yaml") if not path.stem.startswith("deepspeed_")}
    assert there == set(EXPECTED)


@pytest.mark.processes
@pytest.mark.parametrize("name", ["cpu", "single_gpu"])
def test_those_that_this_machine_can_run(name: str, processes: Processes, tmp_path: Path) -> None:
    parts = command(name)[2:]
    parts[1] = str(FOLDER / f"{name}.yaml")
    parts[2] = RECIPE
    # the recipe refuses another world size than the file's head says, and a GPU's file runs where there is none
    finished = processes.run(
        [ACCELERATE, "launch", *parts, f"run.dir={tmp_path}", *overrides(training__steps=2)], forks_children=True
    )
    assert finished.code == 0, finished.err[-2000:]
    assert "trained pvdgan for 2 steps" in finished.out
