"""Reasons to end a run at a step, on every process at the same one."""

from latentscale.distributed.agreement import all_gather
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


def nonfinite_failure(seen: list[float] | None, limit_steps: int, health: Health) -> UserError | None:
    """Why to stop after too many skipped steps in a row, naming the terms of all processes that are not finite.

    Args:
        seen: the flags of a step, the same on every process.
    """
    if seen is None or seen[2] < limit_steps:
        return None
    found = sorted({name for names in all_gather(health.nonfinite()) for name in names})
    # a gradient is not finite because a term is; by itself it is named where none is
    terms = [name for name in found if not name.endswith("/gradient_norm")] or found
    return UserError(
        f"{limit_steps} steps in a row were not finite and were skipped ({', '.join(terms) or 'a gradient'}): rerun"
        " with a lower optimizer.learning_rate to continue from the last checkpoint"
    ).on_every_process()


def with_checkpoint(failure: UserError, step: int, unwritten: UserError | None) -> UserError:
    """The failure, saying that nothing of what was trained before it is lost, or why something is."""
    told = type(failure)(f"{failure} ({unwritten or f'a checkpoint of step {step:,} stands'})")
    return told.on_every_process() if failure.shared else told
