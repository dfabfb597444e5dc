"""Groups of ``scaling_process.py`` processes that wait for commands."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from links import Place

SCRIPT = Path(__file__).resolve().with_name("scaling_process.py")
START_SECONDS = 180.0
REPLY_SECONDS = 120.0
END_SECONDS = 60.0
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LAUNCHERS = ("ACCELERATE_", "PET_", "TORCHELASTIC_")


class Worker:
    """One process; a thread reads its replies, so that a silent process is noticed."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                start_new_session=True,
            )  # fmt: skip
        self._replies: queue.Queue[str] = queue.Queue()
        assert self._process.stdout is not None
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    def send(self, command: str) -> None:
        """Send a command; `reply` waits for its reply."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # `reply` says why it ended
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()

    def reply(self, seconds: float) -> dict[str, Any]:
        """The next reply.

        Raises:
            RuntimeError: the process ended, or did not reply in time.
        """
        try:
            line = self._replies.get(timeout=seconds)
        except queue.Empty:
            line = ""
        if not line:
            raise RuntimeError(f"a process ended or did not reply:\n{self._log.read_text()[-4000:]}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def end(self, seconds: float) -> int | None:
        """Wait for the process to exit, then kill it; its status, None if it was killed."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            return None

    def _read(self, replies: TextIO) -> None:
        for line in replies:
            self._replies.put(line)
        self._replies.put("")


class WorkerGroup:
    """Processes that train together; they wait between commands."""

    def __init__(self, workers: list[Worker]) -> None:
        self.workers = workers

    def all(self, command: str) -> list[dict[str, Any]]:
        """Send a command to all processes; each one's reply."""
        for worker in self.workers:
            worker.send(command)
        return [worker.reply(REPLY_SECONDS) for worker in self.workers]


def stop(groups: Sequence[WorkerGroup]) -> list[list[int | None]]:
    """Stop all runs; the processes' exit statuses, None for one that had to be killed."""
    for group in groups:
        for worker in group.workers:
            worker.send("stop")
    return [[worker.end(END_SECONDS) for worker in group.workers] for group in groups]


@contextmanager
def worker_groups(
    places: Sequence[Place], sizes: Sequence[int], folder: Path, compute_seconds: float
) -> Iterator[list[WorkerGroup]]:
    """A ready group of each size, with its processes at the first places; remaining processes are killed at the end."""
    with ExitStack() as stack:
        started = [
            WorkerGroup(_start_workers(places[:size], folder / f"{size}-processes", compute_seconds, stack))
            for size in sizes
        ]
        for group in started:
            for worker in group.workers:
                worker.reply(START_SECONDS)
        yield started


def _start_workers(places: Sequence[Place], folder: Path, compute_seconds: float, stack: ExitStack) -> list[Worker]:
    folder.mkdir(parents=True)
    size, port = len(places), _free_port()
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS) and name not in LAUNCHED
    }
    workers = []
    for rank, place in enumerate(places):
        environment = {
            **kept,
            "GLOO_SOCKET_IFNAME": place.interface,
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "ACCELERATE_USE_CPU": "true",
        }
        if size > 1:  # one process is started without a launcher, and then has no process group
            environment |= {
                "RANK": str(rank),
                "WORLD_SIZE": str(size),
                # in a namespace of its own it is a node of its own
                "LOCAL_RANK": "0" if place.slowed else str(rank),
                "LOCAL_WORLD_SIZE": "1" if place.slowed else str(size),
                "MASTER_ADDR": places[0].address,
                "MASTER_PORT": str(port),
            }
        command = [
            *place.enter, sys.executable, str(SCRIPT),
            "--folder", str(folder / "run"),
            "--processes", str(size),
            "--compute-seconds", str(compute_seconds),
            "--interface", place.interface if place.slowed else "",
        ]  # fmt: skip
        worker = Worker(command, environment, folder / f"rank-{rank}.log")
        stack.callback(worker.end, 0)
        workers.append(worker)
    return workers


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
