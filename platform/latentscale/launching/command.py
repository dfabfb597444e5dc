"""What a node starts: the argv of its processes' agent, and their environment."""

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from latentscale.launching.exit_reports import FOLDER_VARIABLE
from latentscale.launching.node_options import NodeOptions
from latentscale.launching.restarts import RESTARTS_VARIABLE

# an outer launcher may have set these, and ours sets them again
_OUTER_PREFIXES = ("PET_", "TORCHELASTIC_")
_OUTER_VARIABLES = (
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip


def node_command(options: NodeOptions, port: int, agent_folder: Path | None = None) -> list[str]:
    """The argv that starts this node's processes.

    Args:
        port: TCP, on node 0, for the rendezvous of the processes.
        agent_folder: where the processes' agent keeps its files. Without one it makes a temporary folder and leaves it.

    A single process needs no launcher, and ``accelerate launch`` would not forward signals to it.
    """
    if options.processes == 1:
        return [sys.executable, *options.command]
    return [
        sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch",
        "--multi_gpu",
        "--num_machines", str(options.nodes),
        "--num_processes", str(options.processes),
        "--machine_rank", str(options.node_rank),
        "--main_process_ip", options.main_address,
        "--main_process_port", str(port),
        # time for our launcher to read the exit reports before the agent prints a failure
        "--monitor_interval", "1.5",
        *(["--log_dir", str(agent_folder)] if agent_folder else []),
        # or else a configuration in the user's home decides
        "--mixed_precision", "no",
        "--dynamo_backend", "no",
        "--gpu_ids", "all",
        *options.command,
    ]  # fmt: skip


def node_environment(
    options: NodeOptions, restarts: int, folder: Path, given: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The environment of this node's processes.

    Args:
        restarts: how often the processes were restarted.
        folder: where the processes write their exit reports.
        given: the launcher's own environment.
    """
    kept = {
        name: value
        for name, value in given.items()
        if not name.startswith(_OUTER_PREFIXES) and name not in _OUTER_VARIABLES
    }
    kept[FOLDER_VARIABLE] = str(folder)
    kept[RESTARTS_VARIABLE] = str(restarts)
    kept["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(max(1, round(options.grace_seconds)))
    if options.cpu:
        kept["ACCELERATE_USE_CPU"] = "true"
        kept["CUDA_VISIBLE_DEVICES"] = ""
    if options.nodes > 1 and "GLOO_SOCKET_IFNAME" not in kept and (interface := interface_to(options.main_address)):
        # gloo would resolve this machine's own host name, often to 127.0.0.1 or not at all
        kept["GLOO_SOCKET_IFNAME"] = interface
    return kept


def interface_to(address: str) -> str | None:
    """The network interface that leads to an address, or None where it is unknown."""
    try:
        family, kind, _, _, target = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)  # a datagram socket: nothing is sent
            own = probe.getsockname()[0].removeprefix("::ffff:")
    except OSError:
        return None
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address.partition("%")[0] == own for entry in addresses):
            return name
    return None
