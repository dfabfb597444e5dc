"""PyTorch's DDP as an engine, through Accelerate: it wraps the phase, not a network.

So there is one forward per backward, and no other network's hooks. A vector whose sums are wanted takes a seat in the
first bucket of gradients, as the gradient of a parameter that nothing else uses: it costs no collective of its own.
"""

import warnings
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from latentscale.distributed.agreement import several
from latentscale.distributed.phases import DistributedPhase, Forwarded
from latentscale.methods.phase import Batch, Phase, Terms


class _Boarding(torch.autograd.Function):
    """0 as a function of the seat, whose gradient is the passenger."""

    @staticmethod
    def forward(ctx: Any, seat: Tensor, passenger: Tensor) -> Tensor:
        ctx.passenger = passenger
        return seat.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return ctx.passenger, None


class _WithSeat(nn.Module):
    """What DDP wraps: a phase and the seat.

    The seat's gradient is the first of a backward pass, and DDP orders its buckets by arrival after the first step.
    """

    def __init__(self, phase: nn.Module, seat: Tensor) -> None:
        super().__init__()
        self.phase = phase
        self.seat = nn.Parameter(seat)

    def forward(self, batch: Batch) -> Terms:
        terms: Terms = self.phase(batch)
        return terms


class DDPPhase(DistributedPhase):
    """A phase under DDP; other arguments as `DistributedPhase`.

    Args:
        passenger: a vector like those that are to be summed along with the gradients; None where none is.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        phase: Phase,
        optimizer: torch.optim.Optimizer,
        precision: str,
        compile_backend: str = "",
        passenger: Tensor | None = None,
    ) -> None:
        super().__init__(phase, optimizer, precision, accelerator.device, compile_backend)
        self.accelerator = accelerator
        self._seat: nn.Parameter | None = None
        self._passenger: Tensor | None = None
        wrapped: nn.Module = self.compiled
        if passenger is not None and several():
            wrapped = _WithSeat(wrapped, torch.zeros_like(passenger))
            self._seat = wrapped.seat
        with warnings.catch_warnings():
            # torch renames this option of DDP, and Accelerate still passes it under the old name
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            self.wrapped: nn.Module = accelerator.prepare_model(wrapped, device_placement=False)

    def arrive(self) -> None:
        if self._seat is None or self._passenger is None:
            return super().arrive()
        assert self._seat.grad is not None
        # DDP makes means of gradients
        torch.mul(self._seat.grad, self.accelerator.num_processes, out=self._passenger)
        self._seat.grad = self._passenger = None

    def _forward_backward(self, batch: Batch, count: int, last: bool, forwarded: Forwarded) -> Terms:
        with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
            with self._autocast():
                terms: Terms = self.wrapped(batch)
            loss = terms.loss if count == 1 else terms.loss / count
            passenger = forwarded(terms, last)
            if self._seat is None:
                self._send(passenger)
            elif last:
                # a mean that nobody took must not be added to
                self._seat.grad, self._passenger = None, passenger
                # DDP waits for the gradient of every parameter, an empty seat's too
                seated = torch.zeros_like(self._seat) if passenger is None else passenger
                loss = loss + _Boarding.apply(self._seat, seated)
            loss.backward()
        return terms
