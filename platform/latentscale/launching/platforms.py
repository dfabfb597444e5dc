"""A node's options from the environment of a platform, such as Slurm or Kubernetes, and from the command line."""

import os
import re
import subprocess
from collections.abc import Callable, Mapping

from latentscale.errors import UserError
from latentscale.launching.node_options import flag
from latentscale.wording import shown

_COUNTED = ("auto", "gpu", "cpu")


def options_from_environment(
    variables: Mapping[str, tuple[str, ...]],
    given: Mapping[str, object],
    environment: Mapping[str, str],
    count: Callable[[str], int],
) -> dict[str, object]:
    """A node's options by name, from the command line and the environment; neither overrides the other.

    Args:
        variables: the environment variables that may give an option, by the option's name.
        given: the command line's options; None for those not given.
        count: the number of processes that ``auto``, ``gpu`` or ``cpu`` stands for here.

    Raises:
        UserError: two sources differ, a value is not a number, or an option that several nodes need is missing.
    """
    options = dict(given)
    for name, sources in variables.items():
        values: dict[str, object] = {}
        if given.get(name) is not None:
            values[flag(name)] = given[name]
        for variable in sources:
            if text := environment.get(variable, "").strip():
                values[variable] = _read(name, variable, text, count)
        if len(set(values.values())) > 1:
            given_as = " and ".join(f"{source}={value}" for source, value in values.items())
            raise UserError(f"{given_as} contradict each other: set {flag(name)} in one place")
        if values:
            options[name] = next(iter(values.values()))
    nodes = options.get("nodes")
    if isinstance(nodes, int) and nodes > 1:
        for name in ("node_rank", "main_address"):
            if options.get(name) is None:
                sources = (*variables.get(name, ()), flag(name))
                raise UserError(
                    f"{flag(name)} is missing: each of {nodes} nodes needs it; set one of {', '.join(sources)}"
                )
    return options


def count_processes(kind: str) -> int:
    """How many processes a kind stands for: ``gpu`` one per GPU, ``cpu`` one per CPU, ``auto`` one per GPU, or 1."""
    if kind == "cpu":
        return os.cpu_count() or 1
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True).stdout
    except FileNotFoundError:
        listed = ""
    count = len(listed.splitlines())
    if kind == "gpu" and not count:
        raise UserError("processes per node is 'gpu', but no GPU was found: give a number, or cpu")
    return count or 1


def _read(name: str, variable: str, text: str, count: Callable[[str], int]) -> object:
    if name == "main_address":
        return text
    if name == "processes_per_node" and text in _COUNTED:
        return count(text)
    least, colon, most = text.partition(":")
    if name == "nodes" and colon and least != most:
        raise UserError(f"{variable}={text}: a run has a fixed number of nodes: give one number")
    if not re.fullmatch("[0-9]{1,9}", least):
        raise UserError(f"{variable}={shown(text)} must be a whole number below 10**9")
    return int(least)
