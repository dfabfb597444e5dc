"""Each launcher's argv for a table of options and environments, and the errors of wrong ones."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from latentscale.errors import UserError
from latentscale.launching import kubernetes, slurm
from latentscale.launching.command import node_command, node_environment
from latentscale.launching.dns import wait_for_hostname
from latentscale.launching.exit_reports import FOLDER_VARIABLE
from latentscale.launching.node import make_parser
from latentscale.launching.node_options import NodeOptions, make_options
from latentscale.launching.platforms import options_from_environment
from latentscale.launching.rendezvous import NO_REPORT, NodeFailure, likely_causes
from latentscale.launching.restarts import RESTARTS_VARIABLE
from launching import ROOT, environment

LAUNCHERS = ROOT / "launchers"
RECIPE = ["recipes/pvdgan.py", "run.dir=a folder", "training.batch=48"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
FIXED = ["--monitor_interval", "1.5", "--mixed_precision", "no", "--dynamo_backend", "no", "--gpu_ids", "all"]
PROGRAMS = {
    "node": [sys.executable, "-m", "latentscale.launching.node"],
    "slurm": [sys.executable, "-m", "latentscale.launching.slurm"],
    "kubernetes": [sys.executable, str(LAUNCHERS / "kubernetes.py")],
    "torchrun": ["bash", str(LAUNCHERS / "torchrun.sh")],
}


def accelerate(nodes: int, processes: int, rank: int, address: str, port: int) -> list[str]:
    """The expected argv of accelerate."""
    return [
        *ACCELERATE, "--multi_gpu", "--num_machines", str(nodes), "--num_processes", str(processes),
        "--machine_rank", str(rank), "--main_process_ip", address, "--main_process_port", str(port), *FIXED, *RECIPE,
    ]  # fmt: skip


def launch(program: str, options: list[str], said: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A launcher's dry run in an environment."""
    return subprocess.run(
        [*PROGRAMS[program], "--dry-run", *options, *RECIPE],
        capture_output=True, text=True, cwd=ROOT, env=environment(**said), timeout=60,
    )  # fmt: skip


TORCHRUN = ["torchrun", "--nnodes"]
ARGV = {
    "one process": ("node", [], {}, [sys.executable, *RECIPE]),
    "one node": ("node", ["--processes-per-node", "4"], {}, accelerate(1, 4, 0, "127.0.0.1", 0)),
    "several nodes": (
        "node",
        ["--nodes", "4", "--node-rank", "3", "--processes-per-node", "8", "--main-address", "head"],
        # the variables of another launcher are ignored
        {"PET_NNODES": "2", "RANK": "1", "WORLD_SIZE": "3"},
        accelerate(4, 32, 3, "head", 29500),
    ),
    "port": (
        "node",
        ["--nodes", "2", "--node-rank", "0", "--main-address", "10.0.0.1", "--main-port", "1234"],
        {},
        accelerate(2, 2, 0, "10.0.0.1", 1234),
    ),
    "indexed job": (
        "kubernetes",
        [],
        {
            "JOB_COMPLETION_INDEX": "2", "LATENTSCALE_NODES": "3", "LATENTSCALE_PROCESSES_PER_NODE": "8",
            "LATENTSCALE_MAIN_ADDRESS": "run-0.run", "LATENTSCALE_MAIN_PORT": "29400",
        },
        accelerate(3, 24, 2, "run-0.run", 29400),
    ),
    "indexed job, options": (
        "kubernetes",
        ["--nodes", "3", "--main-address", "run-0.run"],
        {"JOB_COMPLETION_INDEX": "1"},
        accelerate(3, 3, 1, "run-0.run", 29500),
    ),
    "Kubeflow Trainer": (
        "kubernetes",
        [],
        {
            "PET_NNODES": "2", "PET_NPROC_PER_NODE": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "job-node-0-0.job",
            "PET_MASTER_PORT": "29400", "JOB_COMPLETION_INDEX": "1",
        },
        accelerate(2, 4, 1, "job-node-0-0.job", 29400),
    ),
    "Kubeflow Trainer, fixed range": (
        "kubernetes",
        ["--processes-per-node", "1"],
        {"PET_NNODES": "2:2", "PET_NODE_RANK": "0", "PET_MASTER_ADDR": "m", "PET_MASTER_PORT": "29500"},
        accelerate(2, 2, 0, "m", 29500),
    ),
    "one pod": ("kubernetes", [], {}, [sys.executable, *RECIPE]),
    "Slurm": (
        "slurm",
        ["--main-address", "n1", "--main-port", "10007"],
        {"SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_GPUS_ON_NODE": "4"},
        accelerate(2, 8, 1, "n1", 10007),
    ),
    "Slurm, own number": (
        "slurm",
        ["--main-address", "n1", "--processes-per-node", "2"],
        {"SLURM_NNODES": "2", "SLURM_NODEID": "0", "SLURM_NTASKS": "2", "SLURM_GPUS_ON_NODE": "4"},
        accelerate(2, 4, 0, "n1", 29500),
    ),
    "torchrun, one node": (
        "torchrun",
        ["--processes-per-node", "4"],
        {"PET_NNODES": "7"},
        [*TORCHRUN, "1", "--nproc-per-node", "4", "--standalone", *RECIPE],
    ),
    "torchrun, several": (
        "torchrun",
        ["--nodes", "2", "--node-rank", "1", "--processes-per-node", "8", "--main-address", "h", "--main-port", "7"],
        {},
        [
            *TORCHRUN, "2", "--nproc-per-node", "8", "--node-rank", "1", "--master-addr", "h", "--master-port", "7",
            *RECIPE,
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGV)
def test_argv(case: str) -> None:
    program, options, said, expected = ARGV[case]
    done = launch(program, options, said)
    assert done.returncode == 0, done.stderr
    assert shlex.split(done.stdout) == expected


PLACE = ["--nodes", "2", "--main-address", "h"]
REFUSED = {
    "no rank": ("node", PLACE, {}, "--node-rank is missing"),
    "no address": ("node", ["--nodes", "2", "--node-rank", "0"], {}, "--main-address is missing"),
    "rank out of range": ("node", [*PLACE, "--node-rank", "2"], {}, "--node-rank 2: with --nodes 2 it must be 0 to 1"),
    "no nodes": ("node", ["--nodes", "0"], {}, "--nodes 0: must be at least 1"),
    "no processes": ("node", ["--processes-per-node", "0"], {}, "--processes-per-node 0: must be at least 1"),
    "port": ("node", ["--main-port", "70000"], {}, "--main-port 70000"),
    "seconds": ("node", ["--grace-seconds", "nan"], {}, "--grace-seconds nan"),
    "no number": ("node", ["--nodes", "many"], {}, "invalid int value: 'many'"),
    "unknown option": ("node", ["--node", "2"], {}, "--help lists the options"),
    "pod without rank": ("kubernetes", [], {"LATENTSCALE_NODES": "2", "LATENTSCALE_MAIN_ADDRESS": "h"}, "INDEX"),
    "pod without address": ("kubernetes", [], {"PET_NNODES": "2", "PET_NODE_RANK": "0"}, "PET_MASTER_ADDR"),
    "two ranks": (
        "kubernetes", PLACE, {"JOB_COMPLETION_INDEX": "0", "PET_NODE_RANK": "1"},
        "JOB_COMPLETION_INDEX=0 and PET_NODE_RANK=1 contradict each other",
    ),
    "two numbers": ("kubernetes", PLACE, {"PET_NNODES": "3"}, "--nodes=2 and PET_NNODES=3 contradict each other"),
    "elastic": ("kubernetes", [], {"PET_NNODES": "1:4"}, "PET_NNODES=1:4: a run has a fixed number of nodes"),
    "words": ("kubernetes", [], {"LATENTSCALE_NODES": "two"}, "LATENTSCALE_NODES=two must be a whole number"),
    "no GPU": ("kubernetes", [], {"PET_NPROC_PER_NODE": "gpu", "PATH": ""}, "no GPU was found"),
    "Slurm tasks": (
        "slurm", ["--main-address", "h"], {"SLURM_NNODES": "2", "SLURM_NODEID": "0", "SLURM_NTASKS": "16"},
        "16 tasks on 2 nodes",
    ),
    "Slurm rank": ("slurm", [*PLACE, "--node-rank", "0"], {"SLURM_NODEID": "1"}, "SLURM_NODEID=1 contradict"),
    "torchrun without rank": ("torchrun", PLACE, {}, "--node-rank is missing"),
    "torchrun without address": ("torchrun", ["--nodes", "2", "--node-rank", "0"], {}, "--main-address is missing"),
    "torchrun rank": ("torchrun", [*PLACE, "--node-rank", "2"], {}, "it must be 0 to 1"),
    "torchrun option": ("torchrun", ["--node", "2"], {}, "unknown option --node"),
    "torchrun number": ("torchrun", ["--nodes", "two"], {}, "two must be a whole number"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_line_and_status_2(case: str) -> None:
    program, options, said, words = REFUSED[case]
    done = launch(program, options, said)
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_module_is_started_in_the_place_of_a_script(program: str) -> None:
    module = ["-m", "latentscale", "train", "pvdgan", "--dry-run", "run.dir=a folder"]
    said = environment(SLURM_NNODES="1", SLURM_NODEID="0")
    command = [*PROGRAMS[program], "--dry-run", "--processes-per-node", "2", *module]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=said, timeout=60)
    assert done.returncode == 0, done.stderr
    assert shlex.split(done.stdout)[-len(module) :] == module
    # one process has no launcher between
    if program != "torchrun":
        command[command.index("2")] = "1"
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=said, timeout=60)
        assert shlex.split(done.stdout) == [sys.executable, *module]


@pytest.mark.parametrize("flag", [["-m", "latentscale"], ["-mlatentscale"]])
def test_a_modules_name_may_follow_its_flag_at_once(flag: list[str]) -> None:
    command = [*PROGRAMS["node"], "--cpu", "--dry-run", *flag, "train", "pvdgan", "run.dir=x"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60)
    assert shlex.split(done.stdout)[-5:] == ["-m", "latentscale", "train", "pvdgan", "run.dir=x"]


def test_a_module_without_a_name_is_no_recipe() -> None:
    done = subprocess.run([*PROGRAMS["node"], "-m"], capture_output=True, text=True, env=environment(), timeout=60)
    assert done.returncode == 2
    assert "no recipe given" in done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_recipe_must_be_given(program: str) -> None:
    said = environment(SLURM_NNODES="1", SLURM_NODEID="0")
    done = subprocess.run(PROGRAMS[program], capture_output=True, text=True, env=said, timeout=60)
    assert done.returncode == 2
    assert "no recipe given" in done.stderr


def test_processes_get_a_folder_for_exit_reports_and_nothing_from_an_outer_launcher(tmp_path: Path) -> None:
    options = NodeOptions(("recipe.py",), nodes=2, node_rank=1, processes_per_node=2, cpu=True, grace_seconds=77)
    outer = {
        "PET_NNODES": "9", "RANK": "5", "MASTER_PORT": "1", "TORCHELASTIC_RESTART_COUNT": "3",
        "ROLE_NAME": "default", "HOME": "/home", "LATENTSCALE_CACHE": "/cache",
    }  # fmt: skip
    said = node_environment(options, 3, tmp_path, outer)
    assert said == {
        "HOME": "/home", "LATENTSCALE_CACHE": "/cache", FOLDER_VARIABLE: str(tmp_path), RESTARTS_VARIABLE: "3",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "77", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "",
        "GLOO_SOCKET_IFNAME": "lo",  # that leads to 127.0.0.1
    }  # fmt: skip
    assert node_environment(options, 0, tmp_path, {"GLOO_SOCKET_IFNAME": "ib0"})["GLOO_SOCKET_IFNAME"] == "ib0"


@pytest.mark.parametrize("name", ["--rendezvous-seconds", "--meeting-seconds"])
def test_the_rendezvous_timeout_has_an_earlier_name_too(name: str) -> None:
    parsed = make_parser("node", "").parse_args([name, "7", *RECIPE])
    assert make_options(vars(parsed)).rendezvous_seconds == 7


def test_accelerate_reads_the_argv_as_it_is_meant() -> None:
    from accelerate.commands.launch import launch_command_parser

    options = NodeOptions(tuple(RECIPE), nodes=3, node_rank=2, processes_per_node=4, main_address="h")
    command = node_command(options, 1234)
    parsed = launch_command_parser().parse_args(command[len(ACCELERATE) :])
    assert (parsed.num_machines, parsed.num_processes, parsed.machine_rank) == (3, 12, 2)
    assert (parsed.main_process_ip, parsed.main_process_port, parsed.multi_gpu) == ("h", 1234, True)
    assert [parsed.training_script, *parsed.training_script_args] == RECIPE
    assert parsed.log_dir is None
    command = node_command(options, 1234, Path("/reports/agent"))
    assert launch_command_parser().parse_args(command[len(ACCELERATE) :]).log_dir == "/reports/agent"


@pytest.mark.parametrize(("word", "number"), [("auto", 8), ("gpu", 8), ("cpu", 64)])
def test_kubeflow_counts_processes_by_what_a_node_has(word: str, number: int) -> None:
    count = {"auto": 8, "gpu": 8, "cpu": 64}.__getitem__
    said = options_from_environment(kubernetes.VARIABLES, {}, {"PET_NPROC_PER_NODE": word}, count)
    assert said == {"processes_per_node": number}


def test_a_host_name_that_never_resolves_times_out_with_what_to_check() -> None:
    with pytest.raises(TimeoutError, match=r"nowhere\.invalid of node 0 did not resolve within 0\.3 s .*headless"):
        wait_for_hostname("nowhere.invalid", 0.3, retry_seconds=0.1)
    assert wait_for_hostname("localhost", 5) < 1


def test_a_pod_whose_main_host_name_never_resolves_exits_with_1() -> None:
    said = {"LATENTSCALE_NODES": "2", "JOB_COMPLETION_INDEX": "1", "LATENTSCALE_MAIN_ADDRESS": "nowhere.invalid"}
    done = subprocess.run(
        [*PROGRAMS["kubernetes"], "--dns-seconds", "0.2", *RECIPE],
        capture_output=True, text=True, env=environment(**said), timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("launcher of node 1: the host name nowhere.invalid of node 0 did not resolve")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not shutil.which("scontrol"), reason="Slurm is not installed here: there is no scontrol")
def test_the_batch_script_starts_one_launcher_per_node(tmp_path: Path) -> None:
    script = LAUNCHERS / "slurm" / "train.sbatch"
    (tmp_path / "slurm.conf").write_text("ClusterName=none\nSlurmctldHost=localhost\n")
    said = {"SLURM_JOB_ID": "34711", "SLURM_JOB_NODELIST": "n[3-5]", "DRY_RUN": "1", "PYTHON": "/venv/bin/python"}
    said["SLURM_CONF"] = str(tmp_path / "slurm.conf")
    done = subprocess.run([script, *RECIPE], capture_output=True, text=True, env=environment(**said), timeout=60)
    assert done.returncode == 0, done.stderr
    step = ["srun", "--ntasks-per-node=1", "--kill-on-bad-exit=0", "--wait=0"]
    launcher = ["/venv/bin/python", "-m", "latentscale.launching.slurm", "--main-address", "n3", "--main-port", "14711"]
    course = ["--max-restarts", "3", "--stopped-status", "85"]
    assert shlex.split(done.stdout) == [*step, *launcher, *course, *RECIPE]
    chosen = environment(**said, MAX_RESTARTS="0", PROCESSES_PER_NODE="4")
    done = subprocess.run([script, *RECIPE], capture_output=True, text=True, env=chosen, timeout=60)
    course = ["--max-restarts", "0", "--stopped-status", "85", "--processes-per-node", "4"]
    assert shlex.split(done.stdout) == [*step, *launcher, *course, *RECIPE]


def stand_ins(folder: Path, srun_status: int, requeue_status: int) -> dict[str, str]:
    """The environment of a job whose srun and scontrol record their calls and exit with these statuses."""
    folder.mkdir()
    for name, act in (
        ("srun", f"exit {srun_status}"),
        ("scontrol", f"if [ $1 = show ]; then echo n3; echo n4; else exit {requeue_status}; fi"),
    ):
        script = folder / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >> {folder / "calls"}\n{act}\n')
        script.chmod(0o755)
    inside = {"SLURM_JOB_ID": "34711", "SLURM_JOB_NODELIST": "n[3-4]"}
    return environment(**inside, PATH=f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("ended", "requeue", "status", "requeued", "said"),
    [
        (0, 0, 0, False, ""),
        (1, 0, 1, False, ""),
        (2, 0, 2, False, ""),
        (85, 0, 85, True, ""),
        (85, 1, 1, True, "error: the job could not be requeued: submit it again to continue the run\n"),
    ],
)
def test_a_job_that_was_stopped_before_its_end_is_requeued_and_no_other(
    ended: int, requeue: int, status: int, requeued: bool, said: str, tmp_path: Path
) -> None:
    inside = stand_ins(tmp_path / "bin", ended, requeue)
    script = LAUNCHERS / "slurm" / "train.sbatch"
    done = subprocess.run(["bash", script, *RECIPE], capture_output=True, text=True, env=inside, timeout=60)
    assert (done.returncode, done.stderr) == (status, said)
    calls = (tmp_path / "bin" / "calls").read_text().splitlines()
    assert [call.split()[0] for call in calls[:2]] == ["scontrol", "srun"]
    assert calls[1].endswith(" ".join(RECIPE))
    assert calls[2:] == (["scontrol requeue 34711"] if requeued else [])
    assert ("requeueing" in done.stdout) == requeued


def test_the_batch_script_is_refused_outside_of_a_job() -> None:
    script = LAUNCHERS / "slurm" / "train.sbatch"
    done = subprocess.run(["bash", script, *RECIPE], capture_output=True, text=True, env=environment(), timeout=60)
    assert done.returncode != 0
    assert "submit this script with sbatch" in done.stderr


def test_the_cause_of_a_failure_is_reported_before_its_consequences() -> None:
    gone = [NodeFailure(node, f"rank {node}", "lost contact with another process") for node in range(5)]
    full = NodeFailure(5, "rank 5", "the disk is full")
    assert likely_causes([*gone, full], most=1) == "node 5: rank 5: the disk is full"
    silent = NodeFailure(6, "rank 6, 7", NO_REPORT)
    assert likely_causes([*gone, full, silent]) == (
        "node 6: rank 6, 7: ended without reporting why; node 5: rank 5: the disk is full"
    )
    assert likely_causes([NodeFailure(2, "", "disconnected")]) == "node 2: disconnected"
    assert likely_causes(gone[:2]) == "node 0: rank 0 and node 1: rank 1: lost contact with another process"
    assert likely_causes(gone) == "node 0: rank 0 and node 1: rank 1 and 3 more: lost contact with another process"


def test_slurm_needs_a_main_address() -> None:
    with pytest.raises(UserError, match=r"--main-address is missing"):
        options_from_environment(slurm.VARIABLES, {}, {"SLURM_NNODES": "2", "SLURM_NODEID": "0"}, len)
