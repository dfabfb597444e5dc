"""Where a run continues from: rank 0 opens its folder, finds the checkpoint and broadcasts what all must know."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from latentscale.data.unreadable_samples import Skipped
from latentscale.distributed.agreement import broadcast, run_on_rank_zero
from latentscale.training.plan import RunPlan
from latentscale.training.run_folder import RunFolder


@dataclass(frozen=True)
class OpenedRun:
    """Where a run continues from.

    Attributes:
        step: steps taken before; 0 where there is no checkpoint.
        skipped: the samples that were skipped before.
        folder: open, on rank 0 only.
        tensors: the checkpoint's, on rank 0 only; None where there is no checkpoint.
    """

    step: int
    skipped: list[Skipped]
    folder: RunFolder | None
    tensors: dict[str, Tensor] | None


@contextmanager
def open_run(plan: RunPlan) -> Iterator[OpenedRun]:
    """Open a run's folder, which only rank 0 touches, and close it at the end.

    Raises:
        UserError: on every process, if the folder cannot be used.
    """
    folder = run_on_rank_zero(plan.topology.rank, lambda: RunFolder(plan.config, plan.identity()))
    try:
        checkpoint = folder.resumed if folder else None
        step, skipped = broadcast((checkpoint.step, checkpoint.skipped) if checkpoint else (0, []))
        yield OpenedRun(step, skipped, folder, checkpoint.tensors if checkpoint else None)
    finally:
        if folder:
            folder.close()
