"""A phase with its optimizer under an engine: forward, backward, reduced gradients, a step that can be skipped.

The engine is DDP, through Accelerate. DDP wraps the phase, not a network: one forward per backward, and no other
network's hooks.
"""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn

from accelerate import Accelerator
from latentscale.distributed.topology import prefer_loopback
from latentscale.methods.phase import Batch, Phase, Terms

DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}


def make_accelerator(timeout_seconds: float, **options: Any) -> Accelerator:
    """Accelerate as we need it: no mixed precision of its own (phases autocast), no buffer broadcasts."""
    prefer_loopback()
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no",
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=timedelta(seconds=timeout_seconds)),
        ],
        **options,
    )


class DistributedPhase:
    """One phase, its optimizer, and what joins their gradients over processes.

    Args:
        phase: on its device and in its precision already.
        optimizer: a torch Adam or AdamW with ``fused=True``, over the phase's parameters.
        precision: fp32, bf16 (autocast) or fp64.
        compile_backend: of ``torch.compile``, before DDP wraps; empty for eager.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        phase: Phase,
        optimizer: torch.optim.Optimizer,
        precision: str,
        compile_backend: str = "",
    ) -> None:
        self.accelerator = accelerator
        self.phase = phase
        self.optimizer = optimizer
        self.precision = precision
        self.parameters = list(phase.parameters())
        self._learning_rates = [group["lr"] for group in optimizer.param_groups]
        if len(self.parameters) != len(phase.owned_parameters):
            raise RuntimeError(f"phase {phase.name} registered a network after Phase.__init__: name it in `owned`")
        self.on_cpu = accelerator.device.type == "cpu"
        phase.train_only_owned()
        compiled: nn.Module = phase
        if compile_backend:
            # else Dynamo cuts the phase at DDP's bucket boundaries, through the middle of a gradient penalty
            torch._dynamo.config.optimize_ddp = False
            compiled = torch.compile(phase, backend=compile_backend, fullgraph=True)  # type: ignore[assignment]
        with warnings.catch_warnings():
            # torch renames this option of DDP, and Accelerate still passes it under the old name
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            self.wrapped: nn.Module = accelerator.prepare_model(compiled, device_placement=False)

    def backward(self, batches: Sequence[Batch]) -> list[Terms]:
        """Forward and backward over a process's micro-batches; gradients are reduced with the last."""
        self.phase.train_only_owned()
        for parameter in self.parameters:
            parameter.grad = None
        results = []
        for index, batch in enumerate(batches):
            last = index == len(batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                with self._autocast():
                    terms: Terms = self.wrapped(batch)
                (terms.loss if len(batches) == 1 else terms.loss / len(batches)).backward()
            results.append(terms._replace(loss=terms.loss.detach()))
        return results

    def scale_learning_rates(self, factor: float) -> None:
        """From now on the learning rates are ``factor`` times those that the optimizer was made with."""
        for group, rate in zip(self.optimizer.param_groups, self._learning_rates, strict=True):
            group["lr"] = factor * rate

    def gradient_norm(self) -> Tensor:
        """0-dim Euclidean norm of the reduced gradient; non-finite where any element is."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))

    def let_sleep(self, schedule: Mapping[str, float]) -> None:
        """Drop the reduced gradients of what does not move in this step; the optimizer then leaves it alone."""
        if self.phase.asleep(schedule):
            for parameter in self.phase.sleepers():
                parameter.grad = None

    def untrained(self) -> list[str]:
        """Owned parameters without a gradient, which nothing in the loss reaches."""
        return [name for name, parameter in self.phase.named_parameters() if parameter.grad is None]

    def step(self, skip: Tensor) -> None:
        """One optimizer step; where ``skip`` (0-dim float32) is 1 nothing changes; a GPU is not waited for."""
        if self.on_cpu and self.optimizer.state:
            # reading the flag waits for nothing here, and the device's way costs an operation a parameter
            if not skip.item():
                self.optimizer.found_inf = None  # type: ignore[attr-defined]
                self.optimizer.step()
            return
        # the contract by which GradScaler tells a fused optimizer of non-finite gradients
        self.optimizer.found_inf = skip  # type: ignore[attr-defined]
        self.optimizer.grad_scale = None  # type: ignore[attr-defined]
        self.optimizer.step()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16)
