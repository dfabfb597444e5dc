"""The rank of this process as the launcher set it, before any process group exists."""

import os
import socket
from dataclasses import dataclass

import torch

from latentscale.environment import integer_from_environment
from latentscale.errors import UserError


@dataclass(frozen=True)
class Topology:
    """Rank, world size, and local rank on this machine."""

    rank: int = 0
    processes: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> "Topology":
        """Read RANK, WORLD_SIZE and LOCAL_RANK, as torchrun and ``accelerate launch`` set them.

        Raises:
            UserError: one of them is not an integer in its range; names it.
        """
        processes = integer_from_environment("WORLD_SIZE", 1, minimum=1, maximum=_MOST_PROCESSES)
        rank = integer_from_environment("RANK", 0, maximum=processes - 1)
        return cls(rank, processes, integer_from_environment("LOCAL_RANK", 0, maximum=processes - 1))

    def check(self, expected_processes: int) -> None:
        """Check that the world has the size that the run requires (0: any).

        ``accelerate launch --cpu --num_processes 2`` silently starts one process, so a run that needs N processes
        sets ``distributed.processes=N``.
        """
        if expected_processes and expected_processes != self.processes:
            raise UserError(
                f"distributed.processes={expected_processes} but {self.processes} started: launch with"
                f" 'accelerate launch --config_file launchers/accelerate/cpu.yaml', '--multi_gpu --num_processes"
                f" {expected_processes}', or torchrun ('--cpu --num_processes' starts one)"
            )

    @staticmethod
    def refuse_launcher_contradictions(precision: str) -> None:
        """Refuse options of ``accelerate launch`` that a recipe does not support, instead of ignoring them.

        Raises:
            UserError: names the launcher's option and ours.
        """
        asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if asked not in ("no", "", precision):
            raise UserError(
                f"accelerate launch has mixed_precision={asked}, but training.precision={precision}: phases use"
                " autocast themselves, so set training.precision=bf16 (or fp32) and --mixed_precision no"
            )
        for variable, harmless, what, remedy in _REFUSED:
            if os.environ.get(variable, harmless).lower() not in ("", "no", "none", "auto", "false", "0", harmless):
                raise UserError(f"accelerate launch enables {what}, which recipes do not support: {remedy}")

    @classmethod
    def processes_launched(cls) -> int:
        """World size; 1 if the launcher's value is not a number."""
        try:
            return cls.from_environment().processes
        except UserError:
            return 1


def uses_gpu() -> bool:
    """Whether to train on GPUs: if there are any, unless the launcher sets ACCELERATE_USE_CPU."""
    return torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("1", "true", "yes")


def prefer_loopback() -> None:
    """Let gloo use the loopback if all processes are on this machine and no interface was chosen.

    Otherwise gloo resolves the machine's own host name, which fails on many machines.
    """
    local, world = os.environ.get("LOCAL_WORLD_SIZE"), os.environ.get("WORLD_SIZE")
    if local is None or local != world or "GLOO_SOCKET_IFNAME" in os.environ:
        return
    names = {name for _, name in socket.if_nameindex()}
    loopback = next((name for name in ("lo", "lo0") if name in names), None)
    if loopback:
        os.environ["GLOO_SOCKET_IFNAME"] = loopback


_REFUSED = (
    (
        "ACCELERATE_USE_FSDP",
        "no",
        "FSDP",
        "launch without --use_fsdp, and set distributed.engine=deepspeed distributed.zero=2 to partition gradients"
        " and optimizer states",
    ),
    ("ACCELERATE_DYNAMO_BACKEND", "no", "torch.compile", "set training.compile=BACKEND and --dynamo_backend no"),
    (
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
        "1",
        "gradient accumulation",
        "set training.accumulation=N, and give the launcher 1",
    ),
)
_MOST_PROCESSES = 2**20
