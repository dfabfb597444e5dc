"""The memory that a step takes at its peak, found by taking the step with tensors that have sizes and no content."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from latentscale.latents.priors import make_prior
from latentscale.methods.phase import Batch
from latentscale.training.method_building import build_networks
from latentscale.training.plan import ModelPlan

_LATE_STEP = 2**40
"""A step after all that methods begin late, such as updates of P(C)."""


def step_bytes(plan: ModelPlan) -> int:
    """Bytes that the tensors of one micro-batch need at the peak of a step, its gradients included.

    The phases' forward and backward passes, penalties included, run on torch's meta device: the graph is the real one,
    and nothing is allocated or computed. Weights, moments and averages are not counted, and neither is what
    convolutions need for their work. Autocast is not imitated: bf16 counts as fp32.
    """
    config, steps = plan.config, plan.steps
    dtype = torch.float64 if config.training.precision == "fp64" else torch.float32
    with torch.device("meta"):
        networks = {name: network.to(dtype) for name, network in build_networks(plan).items()}
        prior = make_prior(config.latent.law, config.latent.quantile)
        method = plan.method(config.method, networks, prior, plan.spec)
        rows = steps.microbatch
        labels = torch.empty(rows, len(plan.spec.categories), dtype=torch.int64) if method.labelled else None
        batch = Batch(
            torch.empty(rows, *plan.shape, dtype=dtype),
            {name: torch.empty(rows, draw.size, dtype=dtype) for name, draw in method.draws().items()},
            steps.microbatch_streams,
            True,
            labels,
            method.schedule(_LATE_STEP, steps.stream_batch),
            method.state(),
            {},
        )
        with torch.no_grad():
            samples = method.prepare(batch)
            means = {name: sample.mean(0) for name, sample in samples.items()}
        if samples:
            batch = batch._replace(kept=method.prepared(batch, samples, means))
        peak = 0
        for phase in method.phases:
            phase.train_only_owned()
            with LiveBytes() as live:
                terms = phase(batch)
                terms.loss.backward()
            peak = max(peak, live.peak)
            batch = batch._replace(kept={**batch.kept, **terms.kept})
            del terms
    return peak


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, as long as each of them lives.

    Attributes:
        peak: the most that lived at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live: dict[int, int] = {}
        self._total = 0

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count what it returned; views share the storage of what they view."""
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else (result,):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._live:
            return
        self._live[key] = storage.nbytes()
        self._total += storage.nbytes()
        self.peak = max(self.peak, self._total)
        weakref.finalize(storage, self._forget, key).atexit = False

    def _forget(self, key: int) -> None:
        self._total -= self._live.pop(key)
