"""Node launchers on this machine's loopback, as if each were another node's."""

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import psutil

from latentscale.launching.process_tree import rank_of
from launching import ROOT, Process, Processes, free_port

T = TypeVar("T")
STUB_WORKER = str(ROOT / "tests" / "launchers" / "stub_worker.py")


class Nodes:
    """Starts the launchers of N nodes and waits for their end.

    Args:
        starter: which leaves nothing behind.
        count: of nodes.
        processes_per_node: of the run.
        interpreters: start interpreters for launchers, agents and processes, instead of forking all of them from a
            process that has imported torch.
    """

    def __init__(self, starter: Processes, count: int, processes_per_node: int = 1, interpreters: bool = False) -> None:
        self._starter, self._interpreters = starter, interpreters
        self.count, self.processes_per_node = count, processes_per_node
        self._port = str(free_port())
        self.launchers: list[Process] = []

    def start(self, command: Sequence[str], options: Mapping[str, object]) -> None:
        """Start all, the last node first: it waits for node 0."""
        self.launchers = [self.start_one(rank, command, options) for rank in reversed(range(self.count))][::-1]

    def start_one(self, rank: int, command: Sequence[str], options: Mapping[str, object]) -> Process:
        """Start one node's launcher."""
        said = {
            "nodes": self.count, "node-rank": rank, "processes-per-node": self.processes_per_node,
            "main-address": "127.0.0.1", "main-port": self._port, **options,
        }  # fmt: skip
        parts = [part for name, value in said.items() for part in (f"--{name}", str(value))]
        argv = [sys.executable, "-m", "latentscale.launching.node", "--cpu", *parts, *command]
        return self._starter.start(
            argv, interpreter=self._interpreters, forks_children=not self._interpreters,
            PYTHONPATH=str(ROOT / "platform"),
        )  # fmt: skip

    def rank(self, number: int) -> psutil.Process:
        """A rank's process, once it is there."""
        launcher = psutil.Process(self.launchers[number // self.processes_per_node].pid)
        return until(
            lambda: next((child for child in launcher.children(recursive=True) if rank_of(child) == number), None)
        )

    def signal(self, node: int, number: signal.Signals) -> None:
        """To a node's launcher alone."""
        self.launchers[node].send_signal(number)

    def wait(self, timeout_seconds: float = 60) -> tuple[list[int], list[str]]:
        """Exit statuses, and each one's output."""
        said = [launcher.communicate(timeout=timeout_seconds) for launcher in self.launchers]
        return [launcher.returncode for launcher in self.launchers], [out + err for out, err in said]


def until(look: Callable[[], T | None], timeout_seconds: float = 60) -> T:
    """The first true result of a function that is called until it has one."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError("timed out")
