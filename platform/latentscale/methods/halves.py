"""Halves of every stream's batch, as slices: the same samples whatever streams go through together."""

import torch
from torch import Tensor


def first_half(x: Tensor, streams: int) -> Tensor:
    """``[streams · b, …]`` to the first b/2 samples of each stream, ``[streams · b/2, …]``."""
    parted = x.unflatten(0, (streams, -1))
    return parted[:, : parted.shape[1] // 2].flatten(0, 1)


def second_half(x: Tensor, streams: int) -> Tensor:
    """``[streams · b, …]`` to the last b/2 samples of each stream, ``[streams · b/2, …]``."""
    parted = x.unflatten(0, (streams, -1))
    return parted[:, parted.shape[1] // 2 :].flatten(0, 1)


def join_halves(first: Tensor, second: Tensor, streams: int) -> Tensor:
    """The inverse of taking both halves."""
    parts = [half.unflatten(0, (streams, -1)) for half in (first, second)]
    return torch.cat(parts, dim=1).flatten(0, 1)
