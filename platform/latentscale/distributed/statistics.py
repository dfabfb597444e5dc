"""Running statistics: each process observes its own samples, and one vector per step is summed over the processes.

The vector is ``[stop, unreadable, count₁, sum₁…, count₂, sum₂…]``, never below float32; it is piggybacked on the last
phase's gradients.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from latentscale.latents.statistic import Statistic


class FusedStatistics:
    """Sums, counts and two flags of a step in one vector.

    Args:
        statistics: by name.
        device, dtype: of the buffer; float32, or float64 in proofs.
    """

    def __init__(self, statistics: Mapping[str, Statistic], device: torch.device, dtype: torch.dtype) -> None:
        self.statistics = dict(statistics)
        self.buffer = torch.zeros(
            2 + sum(1 + statistic.size for statistic in statistics.values()), device=device, dtype=dtype
        )
        self._flags = self.buffer[:2]
        self._slots: dict[str, tuple[Tensor, Tensor]] = {}
        self._observed: dict[str, list[Tensor]] = {}
        start = 2
        for name, statistic in statistics.items():
            size = statistic.size
            self._slots[name] = (self.buffer[start], self.buffer[start + 1 : start + 1 + size])
            start += 1 + size

    def observe(self, observed: Mapping[str, Tensor]) -> None:
        """Take ``[n, …]`` observations of this process; every sample weighs the same."""
        for name, samples in observed.items():
            self._observed.setdefault(name, []).append(samples)

    def pack(self, stop: bool, unreadable: int = 0) -> Tensor:
        """The vector of this process, which is to be summed over all, in place, before `finish`.

        Args:
            stop: this process asks to stop.
            unreadable: number of samples that this process newly found unreadable.
        """
        if stop:
            self._flags[0] = 1.0
        if unreadable:
            self._flags[1] = float(unreadable)
        for name, parts in self._observed.items():
            count, total = self._slots[name]
            samples = torch.cat(parts)
            count.fill_(len(samples))
            total.copy_(self.statistics[name].contribution(samples))
        return self.buffer

    def finish(self, apply: Tensor) -> Tensor:
        """Update every observed statistic by the sums where ``apply`` is 1, and start afresh.

        Returns:
            ``[2]``: the number of processes that ask to stop, and of samples newly found unreadable, on the device.
        """
        for name in self._observed:
            count, total = self._slots[name]
            self.statistics[name].update(total, count, apply)
        self._observed.clear()
        flags = self._flags.clone()
        self.buffer.zero_()
        return flags


def global_means(parts: Sequence[Mapping[str, Tensor]], dtype: torch.dtype) -> dict[str, Tensor]:
    """Means over all processes' samples, in one collective.

    Args:
        parts: per-sample tensors ``[n, …]`` by name, one mapping a micro-batch; every sample weighs the same.
        dtype: of the sums, float32 or float64.
    """
    names = list(parts[0])
    sums = [torch.cat([part[name] for part in parts]).to(dtype).sum(0) for name in names]
    count = sum(len(part[names[0]]) for part in parts)
    fused = torch.cat([*(each.flatten() for each in sums), sums[0].new_full((1,), count)])
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(fused)
    means = (fused[:-1] / fused[-1]).split([each.numel() for each in sums])
    return {name: mean.view(each.shape) for name, mean, each in zip(names, means, sums, strict=True)}


class LateFlags:
    """Device values read on the host one step late: no host synchronisation inside a step."""

    def __init__(self, count: int, device: torch.device) -> None:
        pinned = device.type == "cuda"
        self._slots = [torch.zeros(count, dtype=torch.float64, pin_memory=pinned) for _ in range(2)]
        self._events = [torch.cuda.Event() for _ in range(2)] if pinned else None
        self._written = 0

    def put(self, values: Tensor) -> None:
        """Start copying ``[count]`` values to the host."""
        slot = self._written % 2
        self._slots[slot].copy_(values, non_blocking=True)
        if self._events is not None:
            self._events[slot].record()
        self._written += 1

    def previous(self) -> list[float] | None:
        """The values before the newest, or None in the first step: the same step on every process."""
        return None if self._written < 2 else self._read(self._written % 2)

    def newest(self) -> list[float]:
        """The newest values, waiting for the device."""
        return self._read((self._written - 1) % 2)

    def _read(self, slot: int) -> list[float]:
        if self._events is not None:
            self._events[slot].synchronize()
        return self._slots[slot].tolist()
