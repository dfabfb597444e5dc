"""What moves with every training step besides the weights."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Statistic(nn.Module, ABC):
    """A running statistic: sums over samples leave a process, and one moving average comes back.

    It keeps buffers or frozen parameters, float32 or float64, never less. Nothing in it carries a gradient, and
    nothing moves a value to the host.
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """Width of the sum."""

    @abstractmethod
    def contribution(self, observed: Tensor) -> Tensor:
        """``[n, …]`` observations to their ``[size]`` sum over samples, in float32 or above.

        Contributions add up: those of phases, streams and processes pool as samples.
        """

    @abstractmethod
    def update(self, total: Tensor, count: Tensor | float, apply: Tensor) -> None:
        """Take the global sum.

        Args:
            total: ``[size]``, the summed contributions of the global batch.
            count: of the samples in it.
            apply: 0-dim, 1 or 0; with 0 nothing changes, even where ``total`` is not finite.
        """
