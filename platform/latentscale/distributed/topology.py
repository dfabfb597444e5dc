"""Which process this is, as the launcher said it, before any process group exists."""

import os
import socket
from dataclasses import dataclass

import torch

from latentscale.errors import UserError


@dataclass(frozen=True)
class Topology:
    """Rank and size of the world, and this process's place on its machine."""

    rank: int = 0
    processes: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> "Topology":
        """Read RANK, WORLD_SIZE and LOCAL_RANK, as torchrun and ``accelerate launch`` set them."""
        read = {name: os.environ.get(name, default) for name, default in _DEFAULTS.items()}
        try:
            return cls(int(read["RANK"]), int(read["WORLD_SIZE"]), int(read["LOCAL_RANK"]))
        except ValueError:
            raise UserError(f"the launcher's RANK, WORLD_SIZE and LOCAL_RANK must be integers, not {read}") from None

    def check(self, expected_processes: int) -> None:
        """Refuse a world of another size than the run asked for (0: any).

        ``accelerate launch --cpu --num_processes 2`` starts one process without a word, so a run that needs N
        says ``distributed.processes=N``.
        """
        if expected_processes and expected_processes != self.processes:
            raise UserError(
                f"distributed.processes={expected_processes} but {self.processes} started: launch with"
                f" 'accelerate launch --config_file launchers/accelerate/cpu.yaml', '--multi_gpu --num_processes"
                f" {expected_processes}', or torchrun ('--cpu --num_processes' starts one)"
            )

    @staticmethod
    def refuse_launcher_contradictions(precision: str) -> None:
        """Refuse what ``accelerate launch`` was told and we would not do, instead of ignoring it.

        Raises:
            UserError: naming the launcher's option and ours.
        """
        asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if asked not in ("no", "", precision):
            raise UserError(
                f"accelerate launch asks for mixed_precision={asked} but training.precision={precision}: phases"
                " autocast by themselves, so give training.precision=bf16 (or fp32) and --mixed_precision no"
            )
        for variable, harmless, what, remedy in _REFUSED:
            if os.environ.get(variable, harmless).lower() not in ("", "no", "none", "auto", "false", "0", harmless):
                raise UserError(f"accelerate launch asks for {what}, which a recipe does not do: {remedy}")

    @staticmethod
    def processes_launched() -> int:
        """World size, 1 where the launcher's words are no numbers."""
        size = os.environ.get("WORLD_SIZE", "1")
        return int(size) if size.isdigit() else 1


def uses_gpu() -> bool:
    """Whether processes train on GPUs: where there are any, unless the launcher says ACCELERATE_USE_CPU."""
    return torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("1", "true", "yes")


def prefer_loopback() -> None:
    """Let gloo talk over the loopback where all processes are on this machine and nobody chose an interface.

    Else gloo resolves the machine's own name, which on many machines leads nowhere.
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
        "launch without --use_fsdp, and give distributed.engine=deepspeed distributed.zero=2 to part gradients and"
        " moments",
    ),
    ("ACCELERATE_DYNAMO_BACKEND", "no", "torch.compile", "give training.compile=BACKEND and --dynamo_backend no"),
    (
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
        "1",
        "gradient accumulation",
        "give training.accumulation=N, and 1 to the launcher",
    ),
)
_DEFAULTS = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
