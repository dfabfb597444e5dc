"""What joins processes: Accelerate as we need it, and a phase under the engine that the run asks for."""

from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor

from latentscale.distributed.ddp import DDPPhase
from latentscale.distributed.deepspeed_settings import forget_launcher
from latentscale.distributed.phases import DistributedPhase
from latentscale.distributed.topology import prefer_loopback, uses_gpu
from latentscale.methods.phase import Phase

DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}


def make_accelerator(timeout_seconds: float, **options: Any) -> Accelerator:
    """Accelerate as we need it: no mixed precision of its own (phases autocast), no buffer broadcasts, no DeepSpeed."""
    prefer_loopback()
    forget_launcher()
    return Accelerator(
        cpu=not uses_gpu(),
        mixed_precision="no",
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=timedelta(seconds=timeout_seconds)),
        ],
        **options,
    )


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
        phase: on its device and in its precision already.
        optimizer: a torch Adam or AdamW with ``fused=True``, over the phase's parameters.
        precision: fp32, bf16 (autocast) or fp64.
        compile_backend: of ``torch.compile``; empty for eager.
        engine: ddp or deepspeed.
        piggyback: a vector of the size and type of those that ``forwarded`` will return (see `phases.Forwarded`).
        zero, offload_optimizer: of deepspeed; see `deepspeed_settings.check_engine` for what goes together.
    """
    if engine == "ddp":
        return DDPPhase(accelerator, phase, optimizer, precision, compile_backend, piggyback)
    # imported by those who ask for it: it takes seconds, and need not be installed
    from latentscale.distributed.deepspeed import make_deepspeed_phase

    return make_deepspeed_phase(
        phase, optimizer, precision, accelerator.device, compile_backend, zero, offload_optimizer
    )
