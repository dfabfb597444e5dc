"""PyTorch's DDP as an engine, through Accelerate: it wraps the phase, not a network.

So there is one forward per backward, and no hooks on other networks. A vector that must be summed over processes is
piggybacked on the gradients: it becomes the gradient of a parameter that nothing else uses, in DDP's first bucket, and
so needs no collective of its own.
"""

import warnings
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from latentscale.distributed.agreement import is_distributed
from latentscale.distributed.phases import AfterForward, DistributedPhase
from latentscale.methods.phase import Batch, Phase, Terms


class _PiggybackGradient(torch.autograd.Function):
    """A zero whose gradient with respect to the carrier parameter is the piggybacked vector."""

    @staticmethod
    def forward(ctx: Any, carrier: Tensor, piggyback: Tensor) -> Tensor:
        ctx.piggyback = piggyback
        return carrier.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return ctx.piggyback, None


class _WithCarrier(nn.Module):
    """The module that DDP wraps: a phase and the carrier parameter.

    The carrier's gradient is the first that a backward pass computes, and after the first step DDP orders its buckets
    by the order in which gradients become ready.
    """

    def __init__(self, phase: nn.Module, carrier: Tensor) -> None:
        super().__init__()
        self.phase = phase
        self.carrier = nn.Parameter(carrier)

    def forward(self, batch: Batch) -> Terms:
        terms: Terms = self.phase(batch)
        return terms


class DDPPhase(DistributedPhase):
    """A phase under DDP; other arguments as `DistributedPhase`.

    Args:
        piggyback: a vector of the size and type of those that will be summed along with the gradients; None for none.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        phase: Phase,
        optimizer: torch.optim.Optimizer,
        precision: str,
        compile_backend: str = "",
        piggyback: Tensor | None = None,
    ) -> None:
        super().__init__(phase, optimizer, precision, accelerator.device, compile_backend)
        self.accelerator = accelerator
        self._carrier: nn.Parameter | None = None
        self._piggyback: Tensor | None = None
        wrapped: nn.Module = self.compiled
        if piggyback is not None and is_distributed():
            wrapped = _WithCarrier(wrapped, torch.zeros_like(piggyback))
            self._carrier = wrapped.carrier
        with warnings.catch_warnings():
            # torch renames this option of DDP, and Accelerate still uses the old name
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            self.wrapped: nn.Module = accelerator.prepare_model(wrapped, device_placement=False)

    def wait_for_piggyback(self) -> None:
        if self._carrier is None or self._piggyback is None:
            return super().wait_for_piggyback()
        assert self._carrier.grad is not None
        # DDP averages gradients
        torch.mul(self._carrier.grad, self.accelerator.num_processes, out=self._piggyback)
        self._carrier.grad = self._piggyback = None

    def _forward_backward(self, batch: Batch, count: int, last: bool, after_forward: AfterForward) -> Terms:
        with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
            with self._autocast():
                terms: Terms = self.wrapped(batch)
            loss = terms.loss if count == 1 else terms.loss / count
            piggyback = after_forward(terms, last)
            if self._carrier is None:
                self._reduce_piggyback(piggyback)
            elif last:
                # DDP would add to a mean that is still there
                self._carrier.grad, self._piggyback = None, piggyback
                # DDP waits for the gradient of every parameter, even if there is nothing to piggyback
                carried = torch.zeros_like(self._carrier) if piggyback is None else piggyback
                loss = loss + _PiggybackGradient.apply(self._carrier, carried)
            loss.backward()
        return terms
