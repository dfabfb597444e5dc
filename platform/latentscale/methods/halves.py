"""Halves of every stream's batch: the same samples whatever streams go through together (see `Batch`)."""

from torch import Tensor


def first_half(x: Tensor) -> Tensor:
    """``[b · streams, …]`` to the first b/2 samples of each stream, a view; b is even."""
    return x[: len(x) // 2]


def second_half(x: Tensor) -> Tensor:
    """``[b · streams, …]`` to the last b/2 samples of each stream, a view; b is even."""
    return x[len(x) // 2 :]
