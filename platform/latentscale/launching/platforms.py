"""What a platform's environment says of a node's place in a run, beside the command line."""

import os
import subprocess
from collections.abc import Callable, Mapping

from latentscale.errors import UserError
from latentscale.launching.options import flag

_COUNTED = ("auto", "gpu", "cpu")


def said_by(
    variables: Mapping[str, tuple[str, ...]],
    given: Mapping[str, object],
    environment: Mapping[str, str],
    count: Callable[[str], int],
) -> dict[str, object]:
    """A node's options by name, from the command line's and the environment: none goes before the other.

    Args:
        variables: the environment variables that may say an option, by the option's name.
        given: the command line's, None where not said.
        count: tells how many processes ``auto``, ``gpu`` and ``cpu`` are here.

    Raises:
        UserError: where two sources differ, one is no number, or none says what several nodes need.
    """
    options = dict(given)
    for name, sources in variables.items():
        said: dict[str, object] = {}
        if given.get(name) is not None:
            said[flag(name)] = given[name]
        for variable in sources:
            if text := environment.get(variable, "").strip():
                said[variable] = _read(name, variable, text, count)
        if len(set(said.values())) > 1:
            values = " and ".join(f"{source}={value}" for source, value in said.items())
            raise UserError(f"{values} contradict each other: say {flag(name)} in one place")
        if said:
            options[name] = next(iter(said.values()))
    nodes = options.get("nodes")
    if isinstance(nodes, int) and nodes > 1:
        for name in ("node_rank", "main_address"):
            if options.get(name) is None:
                sources = (*variables.get(name, ()), flag(name))
                raise UserError(f"{flag(name)} is missing: {nodes} nodes take part; say one of {', '.join(sources)}")
    return options


def count_processes(kind: str) -> int:
    """How many processes ``auto``, ``gpu`` and ``cpu`` stand for: one a GPU, one a processor; auto: GPUs, or 1."""
    if kind == "cpu":
        return os.cpu_count() or 1
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True).stdout
    except FileNotFoundError:
        listed = ""
    count = len(listed.splitlines())
    if kind == "gpu" and not count:
        raise UserError("processes per node: gpu, and no GPU is found: say a number, or cpu")
    return count or 1


def _read(name: str, variable: str, text: str, count: Callable[[str], int]) -> object:
    if name == "main_address":
        return text
    if name == "processes_per_node" and text in _COUNTED:
        return count(text)
    least, colon, most = text.partition(":")
    if name == "nodes" and colon and least != most:
        raise UserError(f"{variable}={text}: a run's number of nodes is fixed: set one number")
    if not least.isdigit():
        raise UserError(f"{variable}={text} is no number")
    return int(least)
