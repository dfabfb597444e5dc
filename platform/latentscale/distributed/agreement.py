"""Processes that must begin, or end, together: small objects over the process group, outside the steps."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch.distributed as dist

from latentscale.errors import Interruption, UserError

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether there is more than one process."""
    return dist.is_initialized() and dist.get_world_size() > 1


def agree(facts: Mapping[str, Any], refusal: UserError | None) -> None:
    """All processes must be ready and hold the same facts; else all end together.

    Args:
        facts: by what they are called, e.g. ``configuration``.
        refusal: why this process cannot begin.

    Raises:
        UserError: the first refusal, or naming the ranks whose facts differ from rank 0's.
    """
    if not is_distributed():
        if refusal:
            raise refusal
        return
    everyone = all_gather((refusal and str(refusal), isinstance(refusal, Interruption), dict(facts)))
    refused = [(rank, message, passing) for rank, (message, passing, _) in enumerate(everyone) if message]
    if refused:
        _, message, passing = refused[0]
        ranks = ", ".join(str(rank) for rank, _, _ in refused)
        raise _shared(message, passing, "" if len(refused) == len(everyone) else ranks)
    for what, first in everyone[0][2].items():
        others = [str(rank) for rank, (_, _, theirs) in enumerate(everyone) if theirs[what] != first]
        if others:
            raise UserError(
                f"rank {', '.join(others)} has another {what} than rank 0: start all with the same"
            ).on_every_process()


def on_rank_zero(rank: int, act: Callable[[], T]) -> T | None:
    """Rank 0's result on rank 0; its UserError on every rank, so that all end together."""
    result, refusal = None, None
    if rank == 0:
        try:
            result = act()
        except UserError as error:
            refusal = str(error), isinstance(error, Interruption)
    if refusal := broadcast(refusal):
        raise _shared(*refusal)
    return result


def joint_failure(own: UserError | None, spoiled_steps: int, shared: UserError | None) -> tuple[UserError | None, int]:
    """What ended the run on any process, on all of them; and how many of the last steps that one had no data for.

    Args:
        own: what keeps this process from going on.
        spoiled_steps: that this process went through without data, so that all have skipped them.
        shared: what all processes know, such as too many skipped steps: of which the other may be the cause.
    """
    everyone = all_gather((own and str(own), isinstance(own, Interruption), spoiled_steps))
    spoiled = max(steps for _, _, steps in everyone)
    failed = [(rank, message, passing) for rank, (message, passing, _) in enumerate(everyone) if message]
    if not failed:
        return shared, spoiled
    rank, message, passing = failed[0]
    return _shared(message, passing, "" if len({message for message, _, _ in everyone}) == 1 else str(rank)), spoiled


def _shared(message: str, passing: bool, ranks: str = "") -> UserError:
    """An error that all processes raise, naming the ranks that it comes from."""
    where = f"rank {ranks}: " if ranks else ""
    return (Interruption if passing else UserError)(where + message).on_every_process()


def all_gather(value: T) -> list[T]:
    """All processes' small values by rank, on every process."""
    if not is_distributed():
        return [value]
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, value)
    return everyone


def broadcast(value: Any) -> Any:
    """Rank 0's small value on every process."""
    if not is_distributed():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
