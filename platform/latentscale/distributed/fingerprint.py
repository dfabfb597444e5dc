"""Divergence guard: a checksum of all that must be the same on every process, compared now and then."""

from collections import Counter
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from latentscale.distributed.agreement import is_distributed
from latentscale.errors import UserError

_WORDS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}
_MULTIPLIER = 0x9E3779B97F4A7C15 - 2**64  # odd, so that no tensor's part is lost; as a signed 64-bit number


@torch.no_grad()
def fingerprint(tensors: Iterable[Tensor]) -> Tensor:
    """``[1]`` int64 checksum of the bits of tensors in their order, made where they are; any one bit changes it."""
    sums = [tensor.contiguous().view(_WORDS[tensor.element_size()]).sum(dtype=torch.int64) for tensor in tensors]
    # a tensor's weight differs from every other's, so that what moved from one to another is seen, too
    weights = (torch.arange(len(sums), device=sums[0].device, dtype=torch.int64) * 2 + 1) * _MULTIPLIER
    return (torch.stack(sums) * weights).sum().reshape(1)


def refuse_divergence(tensors: Iterable[Tensor], step: int) -> None:
    """Compare the processes' fingerprints, in one collective of 8 bytes each; all must call it at the same step.

    Raises:
        UserError: on every process, naming the ranks that differ from the most.
    """
    if not is_distributed():
        return
    own = fingerprint(tensors)
    every = own.new_empty(dist.get_world_size())
    dist.all_gather_single(every, own)
    if different := differing_ranks(every.tolist()):
        ranks = ", ".join(map(str, different))
        raise UserError(
            f"after step {step:,} rank {ranks} holds other weights or statistics than the others, which must be the"
            " same bit for bit: its memory, its device or its software differs; run the same command without that"
            " machine to continue from the last checkpoint"
        ).on_every_process()


def differing_ranks(fingerprints: list[int]) -> list[int]:
    """The ranks whose fingerprint is not the commonest; of as common ones the lowest rank's counts."""
    counts = Counter(fingerprints)
    right = max(fingerprints, key=lambda value: (counts[value], -fingerprints.index(value)))
    return [rank for rank, value in enumerate(fingerprints) if value != right]
