"""Measured values and timings: kept on the device, summed now and then, combined over processes only at reports."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

_SUMMED_STEPS = 64
"""Values of this many steps are collected before they are added up."""


class Health:
    """Means of measured values since the last report, leaving out non-finite ones.

    Args:
        device: where the values are.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._names: list[str] = []
        self._slots: dict[tuple[str, ...], Tensor] = {}
        self._sums = torch.zeros(0, device=device)
        self._counts = torch.zeros(0, device=device)
        self._last: tuple[tuple[str, ...], Tensor] = ((), self._sums)
        self._unsummed: list[Tensor] = []

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's 0-dim values; a step need not have all of them."""
        names = tuple(values)
        if names != self._last[0] or len(self._unsummed) == _SUMMED_STEPS:
            self._sum()
        given = torch.stack(list(values.values()))
        self._last = (names, given)
        self._unsummed.append(given)

    def _sum(self) -> None:
        """Add up the collected values; in every step it would cost six more small operations."""
        if not self._unsummed:
            return
        names = self._last[0]
        if names not in self._slots:
            self._add_names(names)
        given = torch.stack(self._unsummed).to(self._sums.dtype)
        finite, slots = given.isfinite(), self._slots[names]
        self._sums.index_add_(0, slots, torch.where(finite, given, 0.0).sum(0))
        self._counts.index_add_(0, slots, finite.to(self._counts.dtype).sum(0))
        self._unsummed.clear()

    def join(self) -> dict[str, float]:
        """Means over processes and steps since the last call; every process must call it at the same step."""
        self._sum()
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
        """Names of this process's newest values that are not finite; waits for the device."""
        names, values = self._last
        return [name for name, finite in zip(names, values.isfinite().tolist(), strict=True) if not finite]

    def _add_names(self, names: tuple[str, ...]) -> None:
        new = [name for name in names if name not in self._names]
        self._names += new
        room = torch.zeros(len(new), device=self.device)
        self._sums, self._counts = torch.cat([self._sums, room]), torch.cat([self._counts, room])
        self._slots[names] = torch.tensor([self._names.index(name) for name in names], device=self.device)


class StageClock:
    """Seconds spent in each named stage of the steps since the last report.

    On a GPU the stages are bracketed by events, read at the report, so that timing adds no synchronisation.

    Args:
        on_enter: called with the name of each stage as it begins.
    """

    def __init__(self, device: torch.device, on_enter: Callable[[str], None] = lambda name: None) -> None:
        self._cuda = device.type == "cuda"
        self._on_enter = on_enter
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._started = time.perf_counter()

    @contextmanager
    def stage(self, name: str, host: bool = False) -> Iterator[None]:
        """Time a stage; ``host`` for work on the CPU alone."""
        self._on_enter(name)
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
