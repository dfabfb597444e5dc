"""Agreement between processes that must start or end together: collectives of small objects, outside the steps."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch.distributed as dist

from latentscale.errors import Interruption, UserError

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether there is more than one process."""
    return dist.is_initialized() and dist.get_world_size() > 1


def require_agreement(facts: Mapping[str, Any], error: UserError | None) -> None:
    """Check that all processes are ready and hold the same facts; otherwise all raise the same error.

    Args:
        facts: by name, e.g. ``configuration``.
        error: why this process cannot start; None if it can.

    Raises:
        UserError: the first error of any process, or the names of the ranks whose facts differ from rank 0's.
    """
    if not is_distributed():
        if error:
            raise error
        return
    gathered = all_gather((error and str(error), isinstance(error, Interruption), dict(facts)))
    failed = [(rank, message, temporary) for rank, (message, temporary, _) in enumerate(gathered) if message]
    if failed:
        _, message, temporary = failed[0]
        ranks = ", ".join(str(rank) for rank, _, _ in failed)
        raise _shared_error(message, temporary, "" if len(failed) == len(gathered) else ranks)
    for name, first in gathered[0][2].items():
        others = [str(rank) for rank, (_, _, theirs) in enumerate(gathered) if theirs[name] != first]
        if others:
            raise UserError(
                f"the {name} of rank {', '.join(others)} differs from rank 0's: start all processes with the same"
                f" {name}"
            ).on_every_process()


def run_on_rank_zero(rank: int, function: Callable[[], T]) -> T | None:
    """Call a function on rank 0 and return its result there; its UserError is raised on every rank."""
    result, failure = None, None
    if rank == 0:
        try:
            result = function()
        except UserError as error:
            failure = str(error), isinstance(error, Interruption)
    if failure := broadcast(failure):
        raise _shared_error(*failure)
    return result


def gather_failure(
    own: UserError | None, steps_without_data: int, shared: UserError | None
) -> tuple[UserError | None, int]:
    """The failure that ends the run and the number of last steps without data; the same on every process.

    Args:
        own: the failure of this process, if any.
        steps_without_data: last steps for which this process had no data, so that all processes skipped them.
        shared: a failure that all processes know, such as too many skipped steps; a process's own failure may be its
            cause, and takes precedence.
    """
    gathered = all_gather((own and str(own), isinstance(own, Interruption), steps_without_data))
    most_steps = max(steps for _, _, steps in gathered)
    failed = [(rank, message, temporary) for rank, (message, temporary, _) in enumerate(gathered) if message]
    if not failed:
        return shared, most_steps
    rank, message, temporary = failed[0]
    ranks = "" if len({message for message, _, _ in gathered}) == 1 else str(rank)
    return _shared_error(message, temporary, ranks), most_steps


def _shared_error(message: str, temporary: bool, ranks: str = "") -> UserError:
    """An error that all processes raise, naming the ranks that it comes from."""
    where = f"rank {ranks}: " if ranks else ""
    return (Interruption if temporary else UserError)(where + message).on_every_process()


def all_gather(value: T) -> list[T]:
    """All processes' small values by rank, on every process."""
    if not is_distributed():
        return [value]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def broadcast(value: Any) -> Any:
    """Rank 0's small value on every process."""
    if not is_distributed():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
