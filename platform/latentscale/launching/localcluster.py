"""A cluster of several nodes on this machine, for tests and demonstrations: each node is a network namespace.

    with LocalCluster(nodes=3) as cluster:
        cluster.launch(["recipes/pvdgan.py", "run.dir=/tmp/run"], processes_per_node=2, max_restarts=1)
        cluster.nodes[1].disconnect()
        time.sleep(5)
        cluster.nodes[1].reconnect()
        cluster.nodes[2].ranks()[5].kill()
        assert cluster.wait(60) == [0, 0, 0]

The file system is this machine's, shared by all nodes as with NFS.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import psutil

from latentscale.errors import UserError
from latentscale.launching.namespaces import Bridge, Machine, unavailable_reason
from latentscale.launching.node_options import NodeOptions, flag
from latentscale.launching.process_tree import kill_with_parent, rank_of, send_signal

_INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
MAIN_PORT = 29500


@dataclass
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str


class Command:
    """A command on a node, and its output.

    Args:
        node: where it runs.
        argv, environment: of the command.
        on_line: called with every line of output.
    """

    def __init__(
        self,
        node: "ClusterNode",
        argv: Sequence[str],
        environment: Mapping[str, str],
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self._node, self._argv, self._environment, self._on_line = node, argv, environment, on_line
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            node.machine.inside(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=kill_with_parent,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """Both streams, as far as they were read."""
        return "".join(self._lines)

    def poll(self) -> int | None:
        """Its exit status; None while it runs, negative for a signal."""
        return self._process.poll()

    def wait(self, timeout_seconds: float) -> int:
        """Its exit status.

        Raises:
            TimeoutError: it still runs; with the end of its output.
        """
        try:
            code = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"still running after {timeout_seconds:g} s:\n{self.output[-2000:]}") from None
        self._reader.join(5)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command, not to its children."""
        # the command is the child of nsenter, which forwards no signals
        send_signal(number, psutil.Process(self._process.pid).children())

    def restart(self) -> "Command":
        """Start the same command again."""
        return Command(self._node, self._argv, self._environment, self._on_line)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
            if self._on_line:
                self._on_line(line)


class ClusterNode:
    """One node of a cluster.

    Attributes:
        number: from 0.
        name: its host name, node-NUMBER.
        address: IPv4.
        machine: its namespaces and cable.
        launcher: the launcher that was last started on it.
    """

    def __init__(self, bridge: Bridge, number: int, hosts: Path, environment: Mapping[str, str]) -> None:
        self.number, self.name, self.address = number, host_name(number), host_address(number)
        self._bridge, self._hosts, self._environment = bridge, hosts, environment
        self._machine: Machine | None = None
        self.launcher: Command | None = None
        self.boot()

    @property
    def is_on(self) -> bool:
        """Whether it has not been killed since it was last booted."""
        return self._machine is not None

    @property
    def machine(self) -> Machine:
        """Its namespaces and cable.

        Raises:
            RuntimeError: while it is off.
        """
        if self._machine is None:
            raise RuntimeError(f"{self.name} is off: boot() it")
        return self._machine

    def boot(self) -> None:
        """Switch it on, with a connected cable and no processes."""
        if self._machine is None:
            self._machine = Machine(self._bridge, self.number, self.name, self.address, self._hosts)

    def kill(self, silently: bool = False) -> None:
        """SIGKILL every process on it, and switch it off.

        Args:
            silently: like a power failure: the other nodes do not see connections close.
        """
        if self._machine is None:
            return
        if silently:
            self._machine.disconnect()
        self._machine.end()
        self._machine = None

    def start(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> Command:
        """Start a command on this node; ``environment`` is added to the cluster's."""
        return Command(self, argv, {**self._environment, **(environment or {})}, on_line)

    def run(self, argv: Sequence[str], timeout_seconds: float = 60.0) -> Finished:
        """Run a command on this node and wait for its end.

        Raises:
            subprocess.TimeoutExpired: it took longer.
        """
        done = subprocess.run(
            self.machine.inside(argv), capture_output=True, text=True, timeout=timeout_seconds,
            env=dict(self._environment), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Finished(done.returncode, done.stdout, done.stderr)

    def ranks(self) -> dict[int, psutil.Process]:
        """The processes of a run on this node now, by rank."""
        found: dict[int, psutil.Process] = {}
        for process in self.machine.processes():
            rank = rank_of(process)
            # a rank's own children inherit its environment: the oldest is the rank
            if rank is not None and (rank not in found or process.create_time() < found[rank].create_time()):
                found[rank] = process
        return found

    def disconnect(self) -> None:
        """Unplug its cable."""
        self.machine.disconnect()

    def reconnect(self) -> None:
        """Plug its cable in again."""
        self.machine.reconnect()

    def slow(self, bits_per_second: float | None, delay_seconds: float = 0.0) -> None:
        """Slow its cable in both directions; ``None`` removes the limit.

        Raises:
            UserError: the kernel cannot; delays need netem.
        """
        self.machine.limit(bits_per_second, delay_seconds)


class LocalCluster:
    """Nodes on a private network, 10.77.0.1 for node-0 and so on; the end of the ``with`` removes everything.

    Several clusters, of one process or of several, do not see each other.

    Args:
        nodes: number of nodes.
        environment: of all commands; by default this process's, without the variables that choose an interface.

    Raises:
        UserError: root or the tools are missing.
    """

    def __init__(self, nodes: int, environment: Mapping[str, str] | None = None) -> None:
        if reason := unavailable_reason():
            raise UserError(reason)
        if not 1 <= nodes <= 250:
            raise UserError(f"--nodes {nodes}: a local cluster has 1 to 250 nodes")
        given = os.environ if environment is None else environment
        # torch warns about every address that it cannot resolve in IPv6 form
        self.environment = {"TORCH_CPP_LOG_LEVEL": "ERROR", **given}
        for name in _INTERFACE_VARIABLES:
            self.environment.pop(name, None)
        self.nodes: list[ClusterNode] = []
        self._bridge: Bridge | None = None
        self._count = nodes
        self._folder = tempfile.TemporaryDirectory(prefix="latentscale-cluster-")

    def __enter__(self) -> "LocalCluster":
        hosts = Path(self._folder.name) / "hosts"
        names = [f"{host_address(number)} {host_name(number)}" for number in range(self._count)]
        hosts.write_text("\n".join(["127.0.0.1 localhost", "::1 localhost", *names, ""]))
        try:
            self._bridge = Bridge()
            for number in range(self._count):
                self.nodes.append(ClusterNode(self._bridge, number, hosts, self.environment))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill everything in the cluster and remove it."""
        for node in self.nodes:
            node.kill()
        if self._bridge:
            self._bridge.end()
            self._bridge = None
        self._folder.cleanup()

    def launch(
        self,
        command: Sequence[str],
        nodes: Sequence[int] | None = None,
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[int, str], None] | None = None,
        **options: object,
    ) -> list[Command]:
        """Start a run: a node launcher on each of the nodes.

        Args:
            command: the recipe and its arguments.
            nodes: numbers of the nodes to use, the first as the run's node 0; by default all.
            environment: added to the cluster's.
            on_line: called with a node's number and every line of its output.
            options: fields of NodeOptions, such as ``processes_per_node`` and ``max_restarts``.
        """
        chosen = list(range(len(self.nodes)) if nodes is None else nodes)
        shared = NodeOptions(tuple(command), **{"cpu": True, **options})  # type: ignore[arg-type]
        started = []
        for node in self.nodes:
            node.launcher = None
        for rank, number in enumerate(chosen):
            own = replace(
                shared, nodes=len(chosen), node_rank=rank, main_address=host_name(chosen[0]), main_port=MAIN_PORT
            )
            take = (lambda line, number=number: on_line(number, line)) if on_line else None
            node = self.nodes[number]
            node.launcher = node.start(launcher_argv(own), environment, take)
            started.append(node.launcher)
        return started

    def relaunch(self, number: int) -> Command:
        """Start a node's launcher again with its last command, after a kill and a boot."""
        node = self.nodes[number]
        if node.launcher is None:
            raise RuntimeError(f"{node.name} has no launcher: launch() a run first")
        node.launcher = node.launcher.restart()
        return node.launcher

    def wait(self, timeout_seconds: float) -> list[int]:
        """The exit statuses of the launchers that were last started, by node.

        Raises:
            TimeoutError: one still runs; with the end of its output.
        """
        until = time.monotonic() + timeout_seconds
        return [node.launcher.wait(max(0.0, until - time.monotonic())) for node in self.nodes if node.launcher]

    def ranks(self) -> dict[int, psutil.Process]:
        """The processes of a run on all nodes that are switched on, by rank."""
        return {rank: process for node in self.nodes if node.is_on for rank, process in node.ranks().items()}


def launcher_argv(options: NodeOptions) -> list[str]:
    """The command line of a node launcher with these options."""
    parts = [sys.executable, "-m", "latentscale.launching.node"]
    for name in NodeOptions.__dataclass_fields__:
        value = getattr(options, name)
        if name == "command" or value is False:
            continue
        parts += [flag(name)] if value is True else [flag(name), str(value)]
    return [*parts, *options.command]


def host_name(number: int) -> str:
    """A node's host name."""
    return f"node-{number}"


def host_address(number: int) -> str:
    """A node's IPv4 address."""
    return f"10.77.0.{number + 1}"
