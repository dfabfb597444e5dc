"""Engines: the configured Accelerator, and a phase under the engine that the run uses."""

import os
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor

from latentscale.distributed.ddp import DDPPhase
from latentscale.distributed.deepspeed_settings import clear_launcher_environment
from latentscale.distributed.phases import DistributedPhase
from latentscale.distributed.topology import prefer_loopback, uses_gpu
from latentscale.errors import UserError
from latentscale.methods.phase import Phase
from latentscale.wording import shown

DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}


def make_accelerator(timeout_seconds: float, **options: Any) -> Accelerator:
    """An Accelerator without mixed precision (phases autocast), buffer broadcasts or DeepSpeed.

    Raises:
        UserError: Accelerate does not understand a variable of the environment.
    """
    prefer_loopback()
    clear_launcher_environment()
    try:
        return Accelerator(
            cpu=not uses_gpu(),
            mixed_precision="no",
            kwargs_handlers=[
                DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
                InitProcessGroupKwargs(timeout=timedelta(seconds=timeout_seconds)),
            ],
            **options,
        )
    except ValueError as error:
        variables = {name: value for name, value in os.environ.items() if name.startswith("ACCELERATE_")}
        named = [name for name, value in variables.items() if value and value.lower() in str(error).lower()]
        if not named:
            raise
        raise UserError(
            f"{named[0]}={shown(variables[named[0]])} in the environment is nothing that Accelerate understands:"
            " correct or unset it"
        ) from None


def distribute(
    accelerator: Accelerator,
    phase: Phase,
    optimizer: torch.optim.Optimizer,
    precision: str,
    compile_backend: str = "",
    *,
    engine: str = "ddp",
    zero: int = 0,
    offload_optimizer: bool = False,
    piggyback: Tensor | None = None,
) -> DistributedPhase:
    """The phase under its engine.

    Args:
        phase: already on its device and in its precision.
        optimizer: a torch Adam or AdamW with ``fused=True``, over the phase's parameters.
        precision: fp32, bf16 (autocast) or fp64.
        compile_backend: of ``torch.compile``; empty for eager.
        engine: ddp or deepspeed.
        piggyback: a vector of the size and type of those that ``after_forward`` returns (see `phases.AfterForward`).
        zero, offload_optimizer: of deepspeed; `deepspeed_settings.check_engine` checks the combinations.
    """
    if engine == "ddp":
        return DDPPhase(accelerator, phase, optimizer, precision, compile_backend, piggyback)
    # imported only if it is used: the import takes seconds, and DeepSpeed may not be installed
    from latentscale.distributed.deepspeed import make_deepspeed_phase

    return make_deepspeed_phase(
        phase, optimizer, precision, accelerator.device, compile_backend, zero, offload_optimizer
    )
