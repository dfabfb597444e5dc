"""Reasons to end a run at a step, on every process at the same one."""

from latentscale.distributed.phases import DistributedPhase
from latentscale.errors import UserError
from latentscale.training.health import Health


def refuse_untrained(phase: DistributedPhase) -> None:
    """Every owned parameter must have received a gradient in the first step.

    Raises:
        UserError: naming those that did not; under DDP they would silently spoil the others' gradients.
    """
    if names := phase.untrained():
        raise UserError(
            f"the {phase.phase.name} phase trains no {', '.join(names[:3])}: nothing in its loss reaches"
            f" {'it' if len(names) == 1 else 'them'}; set a positive weight for its term, or remove the head"
        ).on_every_process()


def refuse_nonfinite(late: list[float] | None, limit_steps: int, health: Health) -> None:
    """Stop after too many skipped steps in a row, on every process at the same step.

    Raises:
        UserError: naming the terms that are not finite.
    """
    if late is not None and late[2] >= limit_steps:
        names = ", ".join(health.nonfinite()) or "a gradient"
        raise UserError(
            f"{limit_steps} steps in a row were not finite and were skipped ({names}): rerun with"
            " a lower optimizer.learning_rate to continue from the last checkpoint"
        ).on_every_process()
