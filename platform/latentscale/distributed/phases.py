"""A phase and its optimizer under an engine: forward, backward, reduced gradients, a step that can be skipped.

The loop knows this interface and no engine. The methods here assume that every process has all gradients and moments;
an engine that partitions them overrides these methods.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from latentscale.distributed.agreement import is_distributed
from latentscale.errors import UserError
from latentscale.methods.phase import Batch, Phase, Terms

AfterForward = Callable[[Terms, bool], Tensor | None]
"""Called between the forward and backward passes of a micro-batch, with its terms and whether it is the last one. For
the last it may return a vector to be summed over processes, piggybacked on the gradients."""


class DistributedPhase(ABC):
    """One phase and its optimizer, with gradients reduced over processes.

    Args:
        phase: already on its device and in its precision.
        optimizer: a torch Adam or AdamW with ``fused=True``, over the phase's parameters.
        precision: fp32, bf16 (autocast) or fp64.
        device: of the phase.
        compile_backend: of ``torch.compile``, which is applied before the engine wraps the phase; empty for eager.

    Attributes:
        clip_norm: a gradient with a larger norm is scaled down to this one; 0 for never.
    """

    clip_norm = 0.0

    def __init__(
        self,
        phase: Phase,
        optimizer: torch.optim.Optimizer,
        precision: str,
        device: torch.device,
        compile_backend: str = "",
    ) -> None:
        self.phase = phase
        self.optimizer = optimizer
        self.precision = precision
        self.device = device
        self.on_cpu = device.type == "cpu"
        self.parameters = list(phase.parameters())
        self._work: Any = None
        self._learning_rates = [group["lr"] for group in optimizer.param_groups]
        if len(self.parameters) != len(phase.owned_parameters):
            raise RuntimeError(f"phase {phase.name} registered a network after Phase.__init__: name it in `owned`")
        phase.train_only_owned()
        self.compiled: nn.Module = phase
        self._compile_backend = compile_backend
        if compile_backend:
            # otherwise Dynamo splits the phase at DDP's bucket boundaries, in the middle of a gradient penalty
            torch._dynamo.config.optimize_ddp = False
            self.compiled = torch.compile(phase, backend=compile_backend, fullgraph=True)  # type: ignore[assignment]

    def backward(self, batches: Sequence[Batch], after_forward: AfterForward = lambda terms, last: None) -> list[Terms]:
        """Forward and backward over a process's micro-batches; gradients are reduced with the last.

        Args:
            after_forward: the vector that it returns is summed in place; it is ready after `wait_for_piggyback`.

        Raises:
            UserError: the backend of ``torch.compile`` does not work here.
        """
        self.phase.train_only_owned()
        for parameter in self.parameters:
            parameter.grad = None
        results = []
        for index, batch in enumerate(batches):
            try:
                terms = self._forward_backward(batch, len(batches), index == len(batches) - 1, after_forward)
            except RuntimeError as error:
                if not self._compile_backend or not isinstance(error, torch._dynamo.exc.BackendCompilerFailed):
                    raise
                raise self._cannot_compile(error) from error
            results.append(terms._replace(loss=terms.loss.detach()))
        return results

    def wait_for_piggyback(self) -> None:
        """Wait for the sums of the vector that was piggybacked on the gradients, if there was one."""
        if self._work is not None:
            self._work.wait()
            self._work = None

    def scale_learning_rates(self, factor: float) -> None:
        """Set the learning rates to ``factor`` times those that the optimizer was made with."""
        for group, rate in zip(self.optimizer.param_groups, self._learning_rates, strict=True):
            group["lr"] = factor * rate

    def gradient_norm(self) -> Tensor:
        """0-dim Euclidean norm of the reduced gradient; non-finite if any element is."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))

    def drop_frozen_gradients(self, schedule: Mapping[str, float]) -> None:
        """Drop the reduced gradients of parameters frozen this step, so that the optimizer leaves them alone."""
        if self.phase.frozen_this_step(schedule):
            for parameter in self.phase.freezable():
                parameter.grad = None

    def untrained(self) -> list[str]:
        """Owned parameters without a gradient, because the loss does not depend on them; called in the first step."""
        return [name for name, parameter in self.phase.named_parameters() if parameter.grad is None]

    def step(self, skip: Tensor, norm: Tensor) -> None:
        """One optimizer step, without waiting for a GPU.

        Args:
            skip: 0-dim float32; if it is 1 nothing changes.
            norm: `gradient_norm`.
        """
        if self.on_cpu and self.optimizer.state:
            # on the CPU reading the flag waits for nothing, and the device's way costs an operation per parameter
            if not skip.item():
                self._pass_to_optimizer(None, norm)
                self.optimizer.step()
            return
        self._pass_to_optimizer(skip, norm)
        self.optimizer.step()

    def moments(self) -> dict[str, Tensor]:
        """The optimizer's state of each parameter, gathered, by ``kind/parameter`` such as ``exp_avg/…``.

        All processes must call it at the same time; only rank 0 is sure to get everything.
        """
        return {
            f"{kind}/{name}": value
            for name, parameter in self.phase.named_parameters()
            for kind, value in self.optimizer.state.get(parameter, {}).items()
        }

    def load_moments(self, moments: Mapping[str, Tensor]) -> None:
        """Load the optimizer's state, named as in ``moments``, to continue from the current weights.

        Args:
            moments: the same on every process; for each parameter all kinds or none.

        Raises:
            UserError: the engine does not support them.
        """
        found: dict[str, dict[str, Tensor]] = {}
        for key, value in moments.items():
            kind, _, name = key.partition("/")
            found.setdefault(name, {})[kind] = value
        for name, parameter in self.phase.named_parameters():
            if name in found:
                self.optimizer.state[parameter] = {
                    kind: value.clone().to(parameter.device) for kind, value in found[name].items()
                }

    def _cannot_compile(self, error: Exception) -> UserError:
        reason = str(getattr(error, "inner_exception", error)).strip().splitlines()
        return UserError(
            f"training.compile={self._compile_backend} does not work here"
            f" ({reason[0] if reason else 'no reason given'}): install what it needs, choose another backend, or leave"
            " it empty"
        ).on_every_process()

    @abstractmethod
    def _forward_backward(self, batch: Batch, count: int, last: bool, after_forward: AfterForward) -> Terms:
        """One of ``count`` micro-batches, whose loss weighs 1/count; gradients are reduced with the last."""

    def _reduce_piggyback(self, piggyback: Tensor | None) -> None:
        """Start summing a vector over processes, overlapped with the backward pass."""
        if piggyback is not None and is_distributed():
            self._work = dist.all_reduce(piggyback, async_op=True)

    def _pass_to_optimizer(self, skip: Tensor | None, norm: Tensor) -> None:
        """Set the two attributes by which GradScaler tells a fused optimizer whether to skip and what to divide by."""
        excess = (norm / self.clip_norm).clamp(min=1).to(torch.float32) if self.clip_norm else None
        self.optimizer.found_inf = skip  # type: ignore[attr-defined]
        self.optimizer.grad_scale = excess  # type: ignore[attr-defined]

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)
