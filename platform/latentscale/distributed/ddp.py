"""PyTorch's DDP as an engine, through Accelerate: it wraps the phase, not a network.

So there is one forward per backward, and no other network's hooks.
"""

import warnings
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import nn

from latentscale.distributed.phases import DistributedPhase, Forwarded
from latentscale.methods.phase import Batch, Phase, Terms


class DDPPhase(DistributedPhase):
    """A phase under DDP; arguments as `DistributedPhase`."""

    def __init__(
        self,
        accelerator: Accelerator,
        phase: Phase,
        optimizer: torch.optim.Optimizer,
        precision: str,
        compile_backend: str = "",
    ) -> None:
        super().__init__(phase, optimizer, precision, accelerator.device, compile_backend)
        self.accelerator = accelerator
        with warnings.catch_warnings():
            # torch renames this option of DDP, and Accelerate still passes it under the old name
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            self.wrapped: nn.Module = accelerator.prepare_model(self.compiled, device_placement=False)

    def _forward_backward(self, batch: Batch, count: int, last: bool, forwarded: Forwarded) -> Terms:
        with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
            with self._autocast():
                terms: Terms = self.wrapped(batch)
            forwarded(terms, last)
            (terms.loss if count == 1 else terms.loss / count).backward()
        return terms
