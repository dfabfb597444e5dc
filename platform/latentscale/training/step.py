"""One training step: each phase's loss, backward pass and optimizer in turn, then the statistics and the average.

Nothing here waits for a GPU. The only collectives are those of the gradients, which carry the statistics and the
processes' signals, and the one of the means that some methods prepare.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor

from latentscale.distributed.phases import DistributedPhase
from latentscale.distributed.statistics import global_means
from latentscale.errors import UserError
from latentscale.methods.base import Method
from latentscale.methods.phase import Batch, Terms
from latentscale.training.components import Components


class StepResult(NamedTuple):
    """What a step leaves behind, on the device; the same on every process but for ``measured``.

    Attributes:
        measured: 0-dim values of this process to report, by ``phase/term``.
        skip: 0-dim float32, 1 where a gradient was not finite, so that the step changed nothing.
        signals: ``[2]``: how many processes asked to stop, and how many samples they newly found unreadable.
    """

    measured: dict[str, Tensor]
    skip: Tensor
    signals: Tensor


def take_step(
    components: Components,
    step: int,
    batches: Sequence[Batch],
    signals: Callable[[], tuple[bool, int]],
    stage: Callable[[str], AbstractContextManager[None]],
    check_gradients: bool,
) -> StepResult:
    """Train every phase on the process's micro-batches; all processes must call it at the same step.

    Args:
        step: counted from 0.
        batches: as `Feed.fetch` returns them.
        signals: returns whether this process asks to stop, and how many samples it newly found unreadable; called
            once, after the last forward pass.
        stage: times a stage of the step, by its name.
        check_gradients: whether to refuse parameters that no gradient reaches.

    Raises:
        UserError: naming such parameters, on every process.
    """
    method, phases, statistics = components.method, components.phases, components.statistics
    components.rates.set_for(step)
    batches = prepare_batches(method, batches, components.sums_dtype)

    def observe(terms: Terms, last: bool) -> None:
        statistics.observe(terms.observed)

    def observe_and_pack(terms: Terms, last: bool) -> Tensor | None:
        # everything is observed once the last forward pass is done: the sums travel with the last phase's gradients
        observe(terms, last)
        return statistics.pack(*signals()) if last else None

    measured: dict[str, Tensor] = {}
    skips: list[Tensor] = []
    for phase in phases:
        name = phase.phase.name
        with stage(name):
            results = phase.backward(batches, observe_and_pack if phase is phases[-1] else observe)
            batches = [b._replace(kept={**b.kept, **r.kept}) for b, r in zip(batches, results, strict=True)]
            if check_gradients:
                refuse_untrained(phase)
            phase.drop_frozen_gradients(batches[0].schedule)
            norm = phase.gradient_norm()
            # 1 where the norm is not finite (∞ − ∞ and NaN are not 0), and from then on in this step
            nonfinite = ((norm - norm) != 0).to(torch.float32)
            skips.append(torch.maximum(skips[-1], nonfinite) if skips else nonfinite)
            phase.step(skips[-1], norm)
            measured |= mean_measured(name, results)
            measured[f"{name}/gradient_norm"] = norm

    with stage("statistics"):
        apply = 1 - skips[-1]
        phases[-1].wait_for_piggyback()
        summed_signals = statistics.finish(apply)
        components.average.update(apply)
    return StepResult(measured, skips[-1], summed_signals)


@torch.no_grad()
def prepare_batches(method: Method, batches: Sequence[Batch], dtype: torch.dtype) -> list[Batch]:
    """Micro-batches with everything that the step's first phase needs.

    ``state`` holds the statistics as the step before left them, the same tensors for every micro-batch and phase.
    ``kept`` holds what the method prepares from the global batch.
    """
    state = method.state()
    batches = [batch._replace(state=state, kept={}) for batch in batches]
    samples = [method.prepare(batch) for batch in batches]
    if not samples[0]:
        return batches
    means = global_means(samples, dtype)
    return [
        batch._replace(kept=method.prepared(batch, own, means)) for batch, own in zip(batches, samples, strict=True)
    ]


def mean_measured(phase: str, results: Sequence[Terms]) -> dict[str, Tensor]:
    """A phase's measured values averaged over its micro-batches, named ``phase/term``."""
    if len(results) == 1:
        return {f"{phase}/{name}": value for name, value in results[0].measured.items()}
    return {
        f"{phase}/{name}": torch.stack([result.measured[name] for result in results]).mean()
        for name in results[0].measured
    }


def refuse_untrained(phase: DistributedPhase) -> None:
    """Every owned parameter must have received a gradient in the first step.

    Raises:
        UserError: naming those that did not; under DDP they would silently corrupt the gradients of the others.
    """
    if names := phase.untrained():
        raise UserError(
            f"the {phase.phase.name} phase does not train {', '.join(names[:3])}: nothing in its loss reaches"
            f" {'it' if len(names) == 1 else 'them'}; set a positive weight for its term, or remove the head"
        ).on_every_process()
