"""The options of a node's part in a run, which all launchers share."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from latentscale.errors import UserError
from latentscale.settings import LONGEST_SECONDS

DEFAULT_PORT = 29500


@dataclass(frozen=True)
class NodeOptions:
    """One node's part.

    Attributes:
        command: the recipe and its arguments; or ``-m``, a module that trains, and its arguments.
        nodes: number of nodes.
        node_rank: rank of this node, from 0.
        processes_per_node: the same on every node.
        main_address: host name or address of node 0, as every node reaches it.
        main_port: TCP, on node 0, for the rendezvous of the launchers; the processes use a port that node 0 chooses.
        cpu: train on the CPU.
        max_restarts: how often the processes of all nodes are restarted after a failure.
        pause_seconds: before each restart.
        rendezvous_seconds: how long a node waits for the others.
        grace_seconds: how long processes may take to stop.
        stopped_status: exit status of a run that was stopped before its end.
        dry_run: print the command and exit.
    """

    command: tuple[str, ...]
    nodes: int = 1
    node_rank: int = 0
    processes_per_node: int = 1
    main_address: str = "127.0.0.1"
    main_port: int = DEFAULT_PORT
    cpu: bool = False
    max_restarts: int = 0
    pause_seconds: float = 5.0
    rendezvous_seconds: float = 600.0
    grace_seconds: float = 120.0
    stopped_status: int = 0
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: a value is out of range; names the option.
        """
        for name, minimum in (("nodes", 1), ("processes_per_node", 1), ("max_restarts", 0)):
            if getattr(self, name) < minimum:
                raise UserError(f"{flag(name)} {getattr(self, name)}: must be at least {minimum}")
        for name in ("pause_seconds", "rendezvous_seconds", "grace_seconds"):
            if not 0 <= getattr(self, name) <= LONGEST_SECONDS:
                raise UserError(
                    f"{flag(name)} {getattr(self, name)}: must be a number of seconds, from 0 to {LONGEST_SECONDS}"
                )
        if not 0 <= self.node_rank < self.nodes:
            raise UserError(f"--node-rank {self.node_rank}: with --nodes {self.nodes} it must be 0 to {self.nodes - 1}")
        if not 0 < self.main_port < 65536:
            raise UserError(f"--main-port {self.main_port}: must be a TCP port, 1 to 65535")
        if not 0 <= self.stopped_status < 256:
            raise UserError(f"--stopped-status {self.stopped_status}: must be an exit status, 0 to 255")
        if not self.command:
            raise UserError(
                "no recipe given: end the command with one, such as recipes/pvdgan.py key=value or"
                " -m latentscale train pvdgan key=value"
            )

    @property
    def processes(self) -> int:
        """Number of processes of the whole run."""
        return self.nodes * self.processes_per_node


def flag(name: str) -> str:
    """The command-line flag of an option."""
    return "--" + name.replace("_", "-")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a node; one that is not given is None, so that another source may give it."""
    node = parser.add_argument_group("this node")
    node.add_argument("--nodes", type=int, metavar="N", help="number of nodes (default 1)")
    node.add_argument("--node-rank", type=int, metavar="K", help="rank of this node, 0 to N-1; required if N > 1")
    node.add_argument(
        "--processes-per-node",
        type=int,
        metavar="P",
        help="number of processes on each node, usually one per GPU (default 1)",
    )
    node.add_argument("--main-address", metavar="HOST", help="host name or address of node 0; required if N > 1")
    node.add_argument("--main-port", type=int, metavar="PORT", help=f"TCP port on node 0 (default {DEFAULT_PORT})")
    node.add_argument("--cpu", action="store_true", default=None, help="train on the CPU")
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--max-restarts",
        type=int,
        metavar="R",
        help="restart the processes of all nodes after a failure, at most R times (default 0)",
    )
    run.add_argument("--pause-seconds", type=float, metavar="S", help="wait before each restart (default 5)")
    run.add_argument(
        "--rendezvous-seconds", type=float, metavar="S", help="wait this long for other nodes to join (default 600)"
    )
    # the name of earlier releases
    run.add_argument("--meeting-seconds", dest="rendezvous_seconds", type=float, help=argparse.SUPPRESS)
    run.add_argument(
        "--grace-seconds",
        type=float,
        metavar="S",
        help="time for a checkpoint between SIGTERM and SIGKILL (default 120)",
    )
    run.add_argument(
        "--stopped-status",
        type=int,
        metavar="STATUS",
        help="exit status of a run that was stopped before its end (default 0)",
    )
    run.add_argument("--dry-run", action="store_true", default=None, help="print the command and exit")
    add_command(parser)


def add_command(parser: argparse.ArgumentParser) -> None:
    """Add the command that a launcher starts, after its own options: a recipe's script, or a module after ``-m``."""
    parser.add_argument(
        "-m",
        nargs=argparse.REMAINDER,
        dest="module",
        metavar="latentscale train recipe [key=value …]",
        help="a module and its arguments, instead of a script",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="recipe [key=value …]")


def given_command(values: Mapping[str, object]) -> tuple[str, ...]:
    """The command among the parsed options, as Python and ``accelerate launch`` take it."""
    module, command = values.get("module"), values.get("command", ())
    assert isinstance(command, (list, tuple))
    if isinstance(module, list):
        # -mNAME takes the name alone, and leaves its arguments to the command
        return ("-m", *module, *command) if module else ()
    return tuple(command[1:] if command[:1] == ["--"] else command)


class LauncherParser(argparse.ArgumentParser):
    """A parser whose errors are one line, as those of recipes are."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the options)")


def make_options(values: Mapping[str, object]) -> NodeOptions:
    """The options from values by name; None stands for an option that was not given.

    Raises:
        UserError: a value is wrong, or one that several nodes need is missing.
    """
    given = {name: value for name, value in values.items() if value is not None and name in _NAMES}
    given["command"] = given_command(values)
    nodes = given.get("nodes", 1)
    assert isinstance(nodes, int)
    if nodes > 1:
        for name in ("node_rank", "main_address"):
            if name not in given:
                raise UserError(f"{flag(name)} is missing: each of {nodes} nodes needs it")
    return NodeOptions(**given)  # type: ignore[arg-type]


_NAMES = frozenset(NodeOptions.__dataclass_fields__)
