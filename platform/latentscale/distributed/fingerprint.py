"""Divergence check: a checksum of everything that must be the same on every process, compared at intervals."""

from collections import Counter
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from latentscale.distributed.agreement import is_distributed
from latentscale.errors import UserError

_INTEGERS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}
_MULTIPLIER = 0x9E3779B97F4A7C15 - 2**64  # odd, so that every tensor counts; as a signed 64-bit number


@torch.no_grad()
def fingerprint(tensors: Iterable[Tensor]) -> Tensor:
    """``[1]`` int64 checksum of the bits of tensors in order, computed on their device; any one bit changes it."""
    sums = [tensor.contiguous().view(_INTEGERS[tensor.element_size()]).sum(dtype=torch.int64) for tensor in tensors]
    # each tensor has a different weight, so that swapped contents change the checksum, too
    weights = (torch.arange(len(sums), device=sums[0].device, dtype=torch.int64) * 2 + 1) * _MULTIPLIER
    return (torch.stack(sums) * weights).sum().reshape(1)


def refuse_divergence(tensors: Iterable[Tensor], step: int) -> None:
    """Compare the processes' fingerprints, in one collective of 8 bytes per process; all must call it at the same step.

    Raises:
        UserError: on every process; names the ranks that differ from the majority.
    """
    if not is_distributed():
        return
    own = fingerprint(tensors)
    gathered = own.new_empty(dist.get_world_size())
    dist.all_gather_single(gathered, own)
    if different := differing_ranks(gathered.tolist()):
        ranks = ", ".join(map(str, different))
        raise UserError(
            f"after step {step:,} rank {ranks} has different weights or statistics from the others, although they must"
            " be equal bit for bit: its memory, device or software may be faulty; run the same command without that"
            " machine to continue from the last checkpoint"
        ).on_every_process()


def differing_ranks(fingerprints: list[int]) -> list[int]:
    """The ranks whose fingerprint is not the most common one; in a tie the lowest rank's is correct."""
    counts = Counter(fingerprints)
    right = max(fingerprints, key=lambda value: (counts[value], -fingerprints.index(value)))
    return [rank for rank, value in enumerate(fingerprints) if value != right]
