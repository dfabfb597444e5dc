"""Streams: fixed divisions of the batch that make a run independent of its hardware.

A run has S streams whatever the number of processes. The global batch, the draws and the data are divided into
streams. A process owns a contiguous range of them, and accumulation processes that range in equal parts.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentscale.errors import UserError


@dataclass(frozen=True)
class StepPlan:
    """How one training step is divided over processes and micro-batches.

    Attributes:
        batch: global batch, images.
        streams: fixed number of streams.
        processes: number of processes (world size).
        accumulation: micro-batches per process and step.
    """

    batch: int
    streams: int
    processes: int
    accumulation: int

    @classmethod
    def make(cls, batch: int, streams: int, processes: int, accumulation: int) -> "StepPlan":
        """The plan; ``streams=0`` stands for ``min(8, batch // 2)``.

        Raises:
            UserError: the streams do not divide the batch, or processes × accumulation do not divide the streams.
        """
        streams = streams or max(1, min(8, batch // 2))
        if batch % streams:
            nearby = [count for count in range(1, min(batch, 64) + 1) if batch % count == 0]
            raise UserError(
                f"training.batch={batch} is not divisible by distributed.streams={streams}:"
                f" set distributed.streams to one of {', '.join(map(str, nearby))}"
            )
        if streams % (processes * accumulation):
            raise UserError(
                f"distributed.streams={streams} is not divisible by {processes} processes × training.accumulation="
                f"{accumulation}: processes × accumulation must be one of {', '.join(map(str, divisors(streams)))}"
            )
        return cls(batch, streams, processes, accumulation)

    @property
    def stream_batch(self) -> int:
        """Samples of one stream in one step."""
        return self.batch // self.streams

    @property
    def microbatch_streams(self) -> int:
        """Streams that go through the networks together."""
        return self.streams // (self.processes * self.accumulation)

    @property
    def microbatch(self) -> int:
        """Samples that go through the networks together."""
        return self.microbatch_streams * self.stream_batch

    @property
    def process_batch(self) -> int:
        """Samples of one process in one step."""
        return self.batch // self.processes

    def layout(self) -> NDArray[np.int64]:
        """The order of a process's samples in rows: by micro-batch, and within each by position in the stream.

        So the first half of every stream's samples is the first half of a micro-batch's rows: a slice.

        Returns:
            ``[process_batch]``: the index of each row's sample, counted by stream and then by position.
        """
        parted = np.arange(self.process_batch).reshape(self.accumulation, self.microbatch_streams, self.stream_batch)
        return parted.transpose(0, 2, 1).ravel()

    def owned(self, rank: int) -> range:
        """The streams of one process."""
        each = self.streams // self.processes
        return range(rank * each, (rank + 1) * each)

    def allowed(self) -> list[tuple[int, int]]:
        """Every pair (processes, accumulation) that takes the same steps as this plan."""
        return [(p, a) for p in divisors(self.streams) for a in divisors(self.streams // p)]


def divisors(number: int) -> list[int]:
    """The positive divisors, ascending."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})
