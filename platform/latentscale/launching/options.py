"""What a node must know to take its part in a run, as options that every launcher shares."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from latentscale.errors import UserError

DEFAULT_PORT = 29500


@dataclass(frozen=True)
class NodeOptions:
    """One node's part.

    Attributes:
        command: the recipe and its arguments; or ``-m``, a module that trains, and its arguments.
        nodes: how many take part.
        node_rank: this one, from 0.
        processes_per_node: the same on every node.
        main_address: name or address of node 0, as every node reaches it.
        main_port: TCP, on node 0, where launchers meet; the processes then use a port that node 0 chooses.
        cpu: use no GPU.
        max_restarts: how often the whole gang starts again after it lost a process.
        pause_seconds: before it does.
        meeting_seconds: how long a node waits for the others.
        grace_seconds: how long processes that were told to stop may take.
        stopped_status: exit status of a run that was stopped before its end.
        dry_run: print the command and end.
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
    meeting_seconds: float = 600.0
    grace_seconds: float = 120.0
    stopped_status: int = 0
    dry_run: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UserError: naming the option.
        """
        for name, minimum in (("nodes", 1), ("processes_per_node", 1), ("max_restarts", 0)):
            if getattr(self, name) < minimum:
                raise UserError(f"{flag(name)} {getattr(self, name)}: it must be at least {minimum}")
        for name in ("pause_seconds", "meeting_seconds", "grace_seconds"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"{flag(name)} {getattr(self, name)}: it must be a number of seconds, 0 or more")
        if not 0 <= self.node_rank < self.nodes:
            raise UserError(f"--node-rank {self.node_rank}: with --nodes {self.nodes} it is 0 to {self.nodes - 1}")
        if not 0 < self.main_port < 65536:
            raise UserError(f"--main-port {self.main_port}: it is a TCP port, 1 to 65535")
        if not 0 <= self.stopped_status < 256:
            raise UserError(f"--stopped-status {self.stopped_status}: an exit status is 0 to 255")
        if not self.command:
            raise UserError(
                "no recipe is given: end the command with one, such as recipes/pvdgan.py key=value"
                " or -m latentscale train pvdgan key=value"
            )

    @property
    def processes(self) -> int:
        """Of the whole run."""
        return self.nodes * self.processes_per_node


def flag(name: str) -> str:
    """How an option of this name is written."""
    return "--" + name.replace("_", "-")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a node; those that are not given are None, so that another source may say them."""
    place = parser.add_argument_group("the place of this node")
    place.add_argument("--nodes", type=int, metavar="N", help="how many take part (default 1)")
    place.add_argument("--node-rank", type=int, metavar="K", help="this one, 0 to N-1; needed where N > 1")
    place.add_argument("--processes-per-node", type=int, metavar="P", help="usually one a GPU (default 1)")
    place.add_argument("--main-address", metavar="HOST", help="node 0, as every node reaches it; needed where N > 1")
    place.add_argument("--main-port", type=int, metavar="PORT", help=f"TCP, on node 0 (default {DEFAULT_PORT})")
    place.add_argument("--cpu", action="store_true", default=None, help="use no GPU")
    course = parser.add_argument_group("its course")
    course.add_argument(
        "--max-restarts", type=int, metavar="R", help="starts of all nodes' processes after a loss (default 0)"
    )
    course.add_argument("--pause-seconds", type=float, metavar="S", help="before each of them (default 5)")
    course.add_argument("--meeting-seconds", type=float, metavar="S", help="to wait for other nodes (default 600)")
    course.add_argument(
        "--grace-seconds",
        type=float,
        metavar="S",
        help="for a checkpoint after SIGTERM, then SIGKILL (default 120); before training 1 s is taken",
    )
    course.add_argument(
        "--stopped-status", type=int, metavar="STATUS", help="to exit with when stopped before the end (default 0)"
    )
    course.add_argument("--dry-run", action="store_true", default=None, help="print the command and end")
    add_command(parser)


def add_command(parser: argparse.ArgumentParser) -> None:
    """What a launcher starts, at the end of its own options: a recipe's script, or a module after ``-m``."""
    parser.add_argument(
        "-m",
        nargs=argparse.REMAINDER,
        dest="module",
        metavar="latentscale train recipe [key=value …]",
        help="a module and its arguments, instead of a script",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="recipe [key=value …]")


def given_command(said: Mapping[str, object]) -> tuple[str, ...]:
    """The command among the parsed options, as Python and ``accelerate launch`` take it."""
    module, command = said.get("module"), said.get("command", ())
    if isinstance(module, list):
        return ("-m", *module) if module else ()
    assert isinstance(command, (list, tuple))
    return tuple(command[1:] if command[:1] == ["--"] else command)


class Parser(argparse.ArgumentParser):
    """One that refuses in one line, as recipes do."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the options)")


def make_options(said: Mapping[str, object]) -> NodeOptions:
    """Options by name, where None stands for not said.

    Raises:
        UserError: for a wrong one, or one missing that several nodes need.
    """
    given = {name: value for name, value in said.items() if value is not None and name in _NAMES}
    given["command"] = given_command(said)
    nodes = given.get("nodes", 1)
    assert isinstance(nodes, int)
    if nodes > 1:
        for name in ("node_rank", "main_address"):
            if name not in given:
                raise UserError(f"{flag(name)} is missing: {nodes} nodes take part, and each must say it")
    return NodeOptions(**given)  # type: ignore[arg-type]


_NAMES = frozenset(NodeOptions.__dataclass_fields__)
