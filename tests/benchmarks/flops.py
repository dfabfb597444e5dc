"""Floating-point operations of a step, counted while it runs on torch's meta device: nothing is allocated."""

from types import TracebackType
from typing import Any

import torch
from scaling_page import without_memory
from torch.utils.flop_counter import FlopCounterMode

from latentscale.config import Config
from latentscale.methods.base import Method
from latentscale.methods.phase import Batch
from latentscale.training.checks import plan_dry_run
from latentscale.training.step import prepare_batches


class _NoModules:
    """Replaces the counter's module tracker, whose hooks do not allow a gradient inside a forward pass."""

    parents = frozenset({"Global"})

    def __enter__(self) -> "_NoModules":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        pass


def counter() -> FlopCounterMode:
    """torch's counter: matrix products and convolutions, 2 operations per multiply-add; nothing element-wise."""
    counting = FlopCounterMode(display=False)
    tracker: Any = _NoModules()
    counting.mod_tracker = tracker
    return counting


def flops_of_a_step(config: Config, kind: type[Method]) -> dict[str, int]:
    """FLOP per phase of forward, backward and penalties over the global batch; and of ``prepare``, if there is one.

    Of a step that carries penalties, run eagerly: what a compiler recomputes or leaves out does not count.
    """
    plan = plan_dry_run(config, kind)
    steps, spec = plan.steps, plan.spec
    found = {}
    method = without_memory(plan)
    with torch.device("meta"):
        batch = Batch(
            torch.empty(steps.batch, *spec.shape),
            {name: torch.empty(steps.batch, draw.size) for name, draw in method.draws().items()},
            steps.streams,
            True,
            torch.empty(steps.batch, len(spec.categories), dtype=torch.int64) if kind.labelled else None,
            method.schedule(0, steps.stream_batch),
        )
        with counter() as counting:
            (batch,) = prepare_batches(method, [batch], torch.float32)
        if counting.get_total_flops():
            found["prepare"] = counting.get_total_flops()
        for phase in method.phases:
            phase.train_only_owned()
            with counter() as counting:
                terms = phase(batch)
                terms.loss.backward()
            batch = batch._replace(kept={**batch.kept, **terms.kept})
            found[phase.name] = counting.get_total_flops()
    return found
