"""A phase, the unit of distribution: its forward is the loss of one micro-batch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import reduce
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

NOTHING: Mapping[str, Tensor] = MappingProxyType({})
NO_NUMBERS: Mapping[str, float] = MappingProxyType({})


class Batch(NamedTuple):
    """One micro-batch: some streams of one step; the first sample of each stream, then the second of each, and so on.

    So the same part of every stream is a slice of rows: the first half of the rows holds the first half of each stream.

    Attributes:
        real: ``[b · streams, …]`` real data, images in [-1, 1].
        draws: seeded draws by name, each ``[b · streams, …]``.
        streams: number of streams; ``x.unflatten(0, (-1, streams))`` separates them, ``[b, streams, …]``.
        penalise: whether this step carries the gradient penalties.
        labels: ``[b · streams, d_l]`` int64 categories of the reals, None where the method needs none.
        schedule: numbers that change with the step, by name (see `Method.schedule`).
        state: the statistics as the step before left them (see `Method.state`); the same tensors serve every phase.
        kept: what the method prepared, or an earlier phase of this step kept, for this micro-batch.
    """

    real: Tensor
    draws: dict[str, Tensor]
    streams: int
    penalise: bool
    labels: Tensor | None = None
    schedule: Mapping[str, float] = NO_NUMBERS
    state: Mapping[str, Tensor] = NOTHING
    kept: Mapping[str, Tensor] = NOTHING


class Terms(NamedTuple):
    """What a phase computes from a micro-batch.

    Attributes:
        loss: 0-dim, mean over the micro-batch; its gradient trains the phase's networks.
        kept: detached tensors for the next phase.
        observed: detached per-sample tensors for the running statistics, by the statistic's name.
        measured: detached 0-dim values to report, each term of the loss by its name.
    """

    loss: Tensor
    kept: dict[str, Tensor]
    observed: dict[str, Tensor]
    measured: dict[str, Tensor]


Weighted = dict[str, tuple[float, Tensor]]
"""Terms of a loss by name: each one's weight, and its 0-dim value."""


def weighted_terms(
    terms: Weighted,
    kept: Mapping[str, Tensor] | None = None,
    observed: Mapping[str, Tensor] | None = None,
    measured: Mapping[str, Tensor] | None = None,
) -> Terms:
    """What a phase returns: the loss Σ weight · term, and everything else detached.

    A term of weight 0 is measured but stays out of the loss.

    Args:
        terms: in the order in which they are added up.
        kept, observed: as in `Terms`.
        measured: what to report besides the terms.
    """
    weighted = [value if weight == 1 else weight * value for weight, value in terms.values() if weight != 0]
    loss = reduce(torch.add, weighted)
    values = {name: value for name, (_, value) in terms.items()}
    return Terms(loss, _detached(kept), _detached(observed), _detached(values) | _detached(measured))


def _detached(tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in (tensors or {}).items()}


class ParameterGroup(NamedTuple):
    """Parameters of a phase that have their own step size.

    Attributes:
        parameters: some of the phase's own.
        learning_rate: None is the run's.
        weight_decay: None is the run's.
    """

    parameters: list[nn.Parameter]
    learning_rate: float | None = None
    weight_decay: float | None = None


class Phase(nn.Module, ABC):
    """The unit of distribution: owns the networks it trains, borrows the others, and its forward is the loss.

    Owned networks are registered, so that DDP sees their parameters, and are attributes by their names; borrowed ones
    are hidden in a tuple.

    Args:
        owned: the networks that the phase trains, by name.
        borrowed: the networks that it uses frozen, by name.
        settings: the method's.
        sizes: d_c of each label, empty without categories.
    """

    name: ClassVar[str]
    settings: Any

    def __init__(
        self,
        owned: Mapping[str, nn.Module],
        borrowed: Mapping[str, nn.Module],
        settings: Any = None,
        sizes: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.settings, self.sizes = settings, sizes
        for name, network in owned.items():
            self.add_module(name, network)
        self._hidden = (dict(borrowed),)
        # listed once: walking the modules every step would take longer than many a kernel
        self.owned_parameters = list(self.parameters())
        self.borrowed_parameters = [p for network in borrowed.values() for p in network.parameters()]

    def borrowed(self, name: str) -> nn.Module:
        """A network of another phase, frozen while this one runs."""
        return self._hidden[0][name]

    def train_only_owned(self) -> None:
        """Freeze the borrowed networks; to be called before each forward pass of this phase."""
        for parameter in self.borrowed_parameters:
            parameter.requires_grad = False
        for parameter in self.owned_parameters:
            parameter.requires_grad = True

    def parameter_groups(self) -> list[ParameterGroup]:
        """The phase's parameters for its optimizer; together they must be all of them, each once."""
        return [ParameterGroup(list(self.parameters()))]

    def freezable(self) -> list[nn.Parameter]:
        """Owned parameters that some steps freeze, by dropping their reduced gradients (see `frozen_this_step`)."""
        return []

    def frozen_this_step(self, schedule: Mapping[str, float]) -> bool:
        """Whether this step freezes the `freezable` parameters."""
        return False

    @abstractmethod
    def forward(self, batch: Batch) -> Terms:
        """All forward passes and penalties of the phase, in one call."""
