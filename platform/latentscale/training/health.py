"""Numbers of a run's health: summed on the device every step, joined over processes at report steps only."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from latentscale.methods.base import Terms


class Health:
    """Means of reported values since the last report, skipping non-finite ones.

    Args:
        device: where the values are.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._names: list[str] = []
        self._sums = torch.zeros(0, device=device)
        self._counts = torch.zeros(0, device=device)
        self._last = torch.zeros(0, device=device)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Take one step's 0-dim values; the names are the same in every step, or are added as they come."""
        names = list(values)
        if names != self._names:
            self._reorder(names + [name for name in self._names if name not in values])
        self._last = torch.stack([value.to(self._sums.dtype) for value in values.values()])
        finite = self._last.isfinite()
        self._sums[: len(names)] += torch.where(finite, self._last, 0.0)
        self._counts[: len(names)] += finite

    def join(self) -> dict[str, float]:
        """Mean over processes and steps since the last call; every process must call it at the same step."""
        both = torch.stack([self._sums, self._counts])
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(both)
        sums, counts = both.cpu().tolist()
        self._sums.zero_()
        self._counts.zero_()
        return {
            name: total / count if count else math.nan
            for name, total, count in zip(self._names, sums, counts, strict=True)
        }

    def nonfinite(self) -> list[str]:
        """Names of the newest values of this process that are not finite; waits for the device."""
        flags = self._last.isfinite().tolist()
        return [name for name, finite in zip(self._names, flags, strict=False) if not finite]

    def _reorder(self, names: list[str]) -> None:
        before = {name: index for index, name in enumerate(self._names)}
        sums, counts = (
            torch.zeros(len(names), device=self.device),
            torch.zeros(len(names), device=self.device),
        )
        for index, name in enumerate(names):
            if name in before:
                sums[index], counts[index] = self._sums[before[name]], self._counts[before[name]]
        self._names, self._sums, self._counts = names, sums, counts


def mean_measured(phase: str, results: Sequence[Terms]) -> dict[str, Tensor]:
    """A phase's measured values averaged over its micro-batches, named ``phase/term``."""
    if len(results) == 1:
        return {f"{phase}/{name}": value for name, value in results[0].measured.items()}
    return {
        f"{phase}/{name}": torch.stack([result.measured[name] for result in results]).mean()
        for name in results[0].measured
    }


class StageClock:
    """Seconds spent in each named stage of the steps since the last report.

    On a GPU the stages are bracketed by events, read at the report, so that timing adds no synchronisation.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._started = time.perf_counter()

    @contextmanager
    def stage(self, name: str, host: bool = False) -> Iterator[None]:
        """Time a stage; ``host`` for what happens on the CPU alone."""
        if self._cuda and not host:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            yield
            end.record()
            self._events.append((name, begin, end))
        else:
            begun = time.perf_counter()
            yield
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - begun

    def read(self) -> dict[str, float]:
        """Seconds by stage, and ``total`` by the wall clock, since the last call."""
        for name, begin, end in self._events:
            end.synchronize()
            self._seconds[name] = self._seconds.get(name, 0.0) + begin.elapsed_time(end) / 1000
        now = time.perf_counter()
        seconds = {**self._seconds, "total": now - self._started}
        self._seconds, self._events, self._started = {}, [], now
        return seconds
