"""Which process this is, as the launcher said it, before any process group exists."""

import os
from dataclasses import dataclass

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
        if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() in ("true", "1"):
            raise UserError(
                "accelerate launch asks for DeepSpeed but distributed.engine=ddp is the only engine: launch without"
                " --use_deepspeed"
            )


_DEFAULTS = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
