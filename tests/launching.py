"""Helpers that start real processes with a time limit, and one small configuration for them."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import psutil

from forked import ForkedProcess, fork_server

ROOT = Path(__file__).resolve().parents[1]

# a model so small that a step takes milliseconds, in float64
TINY = {
    "latent.dim": 8,
    "network.widths": "[4]",
    "network.base_width": 4,
    "training.batch": 32,
    "distributed.streams": 16,
    "training.precision": "fp64",
    "training.report_every_steps": 5,
    "telemetry.tensorboard": "false",
    "telemetry.progress": "false",
    "snapshot.every_steps": 0,
    "evaluation.images": 16,
}

RANKS = Path(__file__).with_name("ranks.py")
PORTS_PER_PROCESS = 100


@dataclass
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str


def environment(**extra: str) -> dict[str, str]:
    """This environment without the variables of an outer launcher, with one thread per process, on the loopback."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ACCELERATE_", "PET_", "TORCHELASTIC_"))
        and name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    }
    return {**kept, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": "", **extra}


@cache
def _port_numbers() -> tuple[socket.socket, Iterator[int]]:
    """Ports that no other test process on this machine takes, over and over, and the socket whose name claims them.

    The kernel assigns ephemeral ports from 32768 on; these are below.
    """
    claim = socket.socket(socket.AF_UNIX)
    for first in range(20_000, 32_000, PORTS_PER_PROCESS):
        with contextlib.suppress(OSError):
            claim.bind(f"\0latentscale tests, ports from {first}")
            return claim, itertools.cycle(range(first, first + PORTS_PER_PROCESS))
    raise AssertionError("120 processes run tests on this machine")


def free_port() -> int:
    """A free TCP port, which stays free until it is used seconds later."""
    for port in itertools.islice(_port_numbers()[1], PORTS_PER_PROCESS):
        if _is_free(port):
            return port
    raise AssertionError(f"all {PORTS_PER_PROCESS} ports of this process's tests are in use: end what uses them")


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def launch_command(processes: int, script: Path | str) -> list[str]:
    """The command that starts a script with N connected processes on this machine; none of them imports torch anew."""
    if processes == 1:
        return [sys.executable, str(script)]
    return [
        sys.executable, str(RANKS), str(processes), str(free_port()), str(script),
        f"distributed.processes={processes}",
    ]  # fmt: skip


def accelerate_command(processes: int, script: Path | str) -> list[str]:
    """The command with which a user starts a recipe with N > 1 processes: for tests of what a launcher does."""
    return [
        str(Path(sys.executable).with_name("accelerate")), "launch", "--multi_gpu", "--num_machines", "1",
        "--num_processes", str(processes), "--main_process_port", str(free_port()), "--mixed_precision", "no",
        "--dynamo_backend", "no", str(script), f"distributed.processes={processes}",
    ]  # fmt: skip


Process = subprocess.Popen[str] | ForkedProcess


def python_arguments(command: Sequence[str], forks_children: bool = False) -> list[str]:
    """What follows ``python`` in a command that starts Python without options of its own; empty for other commands.

    Args:
        forks_children: whether the processes that it starts are to be forked as well, so that it may be a launcher.
    """
    program, *arguments = command
    scripts = ("latentscale", "accelerate") if forks_children else ("latentscale",)
    if program in [str(Path(sys.executable).with_name(name)) for name in scripts]:
        return list(command)
    options = arguments[0].startswith("-") and arguments[0] not in ("-c", "-m") if arguments else True
    return [] if program != sys.executable or options else arguments


class Processes:
    """Starts commands in their own sessions and leaves none behind."""

    def __init__(self) -> None:
        self._started: list[Process] = []

    def start(
        self, command: Sequence[str], cwd: Path = ROOT, interpreter: bool = False, copy: str = "",
        forks_children: bool = False, modules: Sequence[str] = (), **extra: str,
    ) -> Process:  # fmt: skip
        """Start a command.

        Args:
            interpreter: start an interpreter even where a fork of one that has imported torch would serve, which takes
                a fortieth of the time: for tests of what happens while, or depends on how, modules are imported.
            copy: a PYTHONPATH with a copy of the package, to be used instead of this one.
            forks_children: of a launcher: fork the interpreters that it starts, as itself, from one that has imported
                torch.
            modules: that a fork has imported besides those of the product.
            extra: environment variables; one for the interpreter, other than PYTHONPATH, needs an interpreter too.
        """
        extra |= {"PYTHONPATH": copy} if copy else {}
        surroundings = environment(ACCELERATE_USE_CPU="true", **extra)
        interpreter = interpreter or any(name.startswith("PYTHON") and name != "PYTHONPATH" for name in extra)
        argv = [] if interpreter else python_arguments(command, forks_children)
        if argv:
            forked = ForkedProcess(argv, cwd, surroundings, fork_server(copy, modules), forks_children)
            self._started.append(forked)
            return forked
        process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env=surroundings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # a shell ignores Ctrl-C in background commands, and children would inherit that
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        self._started.append(process)
        return process

    def start_ranks(self, count: int, command: Sequence[str], **extra: str) -> list[Process]:
        """Start N connected processes on this machine, without a launcher that would end the others with one."""
        port = str(free_port())
        return [
            self.start(
                command, **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
                "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **extra},
            )
            for rank in range(count)
        ]  # fmt: skip

    def run(
        self, command: Sequence[str], cwd: Path = ROOT, timeout_seconds: float = 120, interpreter: bool = False,
        copy: str = "", forks_children: bool = False, modules: Sequence[str] = (), **extra: str,
    ) -> Finished:  # fmt: skip
        process = self.start(command, cwd, interpreter, copy, forks_children, modules, **extra)
        try:
            out, err = process.communicate(timeout=timeout_seconds)
        finally:
            self.end(process)
        return Finished(process.returncode, out, err)

    def end(self, process: Process) -> None:
        # a launcher starts its workers in their own sessions: find them as its children; the number of a process that
        # has ended may be another's by now
        if process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for process in self._started:
            self.end(process)


def overrides(**changes: object) -> list[str]:
    """TINY with changes (``training__steps=3``), as ``key=value`` arguments."""
    settings = {**TINY, **{name.replace("__", "."): value for name, value in changes.items()}}
    return [f"{name}={value}" for name, value in settings.items()]


def slowed_script(path: Path, recipe: str, lines: str = "", phase_seconds: float = 0.03) -> Path:
    """A recipe with some lines before it, whose phases are slowed down like those of a larger model."""
    script = ROOT / "recipes" / f"{recipe}.py"
    path.write_text(f"""
import os, runpy, sys, time
from latentscale.distributed.phases import DistributedPhase
RANK = os.environ.get("RANK", "0")
backward_at_once = DistributedPhase.backward
def backward(self, batches, *args):
    time.sleep({phase_seconds})
    return backward_at_once(self, batches, *args)
DistributedPhase.backward = backward
{lines}
if __name__ == "__main__":
    sys.argv[0] = {str(script)!r}
    runpy.run_path({str(script)!r}, run_name="__main__")
""")
    return path


Train = Callable[..., Finished]
