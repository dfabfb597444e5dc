"""What a method is: networks, running statistics, draws, and a list of phases whose forward is the loss."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from latentscale.errors import UserError
from latentscale.latents.draws import Purpose
from latentscale.latents.priors import Prior
from latentscale.latents.scale import at_least_float32
from latentscale.losses.adversarial import ADVERSARIAL
from latentscale.losses.penalties import discriminate_with_gradient
from latentscale.networks.outputs import Discrimination, Heads
from latentscale.settings import setting


@dataclass
class MethodSettings:
    """Settings of every adversarial method (METHODS: adversarial losses and penalties)."""

    adversarial: str = setting("nonsaturating", "adversarial loss", choices=tuple(ADVERSARIAL))
    r1: float = setting(3.0, "weight of R1 = mean ‖∇a‖² on reals, no factor ½", minimum=0)
    r2: float = setting(0.0, "weight of R2, the same on fakes", minimum=0)
    penalty_interval_steps: int = setting(
        1, "penalties every so many steps, multiplied by as much", unit="steps", minimum=1
    )


class Batch(NamedTuple):
    """One micro-batch: some streams of one step; the first sample of each stream, then the second of each, and so on.

    A part of every stream is so a slice of rows: the first half of the rows holds the first half of each stream.

    Attributes:
        real: ``[b · streams, …]`` real data, images in [-1, 1].
        draws: seeded draws by name, each ``[b · streams, …]``.
        state: what the statistics left by the step before say (``scale``, ``variance``); serves both phases.
        kept: what an earlier phase of this step kept for this micro-batch.
        streams: number of streams; ``x.unflatten(0, (-1, streams))`` parts them, ``[b, streams, …]``.
        penalise: whether this step carries the gradient penalties.
    """

    real: Tensor
    draws: dict[str, Tensor]
    state: dict[str, Tensor]
    kept: dict[str, Tensor]
    streams: int
    penalise: bool


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


class Statistic(Protocol):
    """A running statistic: sums over samples leave a process, one moving average comes back."""

    @property
    def size(self) -> int:
        """Width of the sum."""

    def contribution(self, observed: Tensor) -> Tensor:
        """``[n, size]`` observations to their ``[size]`` sum."""

    def update(self, total: Tensor, count: Tensor, apply: Tensor) -> None:
        """Take the global sum and count; where ``apply`` is 0 nothing changes."""


class Draw(NamedTuple):
    """One seeded draw from the prior a step: its purpose (the key of its generator) and elements a sample."""

    purpose: Purpose
    size: int


class Phase(nn.Module, ABC):
    """The unit of distribution: owns the networks it trains, borrows the others, and its forward is the loss.

    Owned networks are registered, so that DDP sees their parameters; borrowed ones are hidden in a tuple.
    """

    name: ClassVar[str]

    def __init__(self, owned: Mapping[str, nn.Module], borrowed: Mapping[str, nn.Module]) -> None:
        super().__init__()
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
        """Freeze what is borrowed; must be called before each of this phase's forward passes."""
        for parameter in self.borrowed_parameters:
            parameter.requires_grad = False
        for parameter in self.owned_parameters:
            parameter.requires_grad = True

    @abstractmethod
    def forward(self, batch: Batch) -> Terms:
        """All forward passes and penalties of the phase, in one call."""


class Method(ABC):
    """A method: built from its settings and networks, it says what to draw, what to observe and what to do.

    Args:
        settings: an instance of the method's own ``Settings``.
        generator, discriminator: networks, the latter with this method's ``heads``.
        prior: law of each latent element.
        latent_dim: d_z.

    Attributes:
        networks: by name, all that is trained and saved.
        statistics: by name, what moves with every step besides the weights.
        phases: in the order of a step.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    inverts: ClassVar[bool] = False
    dynamic_scale: ClassVar[bool] = False

    networks: dict[str, nn.Module]
    statistics: dict[str, Statistic]
    phases: list[Phase]

    def __init__(
        self,
        settings: Any,
        generator: nn.Module,
        discriminator: nn.Module,
        prior: Prior,
        latent_dim: int,
    ) -> None:
        self.settings = settings
        self.prior = prior
        self.latent_dim = latent_dim
        self.networks = {"generator": generator, "discriminator": discriminator}
        self.statistics = {}
        self.phases = []

    @classmethod
    @abstractmethod
    def heads(cls, latent_dim: int) -> Heads:
        """The discriminator's heads that this method trains."""

    @classmethod
    def validate(cls, settings: Any, law: str, stream_batch: int) -> None:
        """Refuse what this method's mathematics cannot work with, naming the key.

        Raises:
            UserError: with the remedy.
        """

    def draws(self) -> dict[str, Draw]:
        """What is drawn from the prior in a step, for each sample."""
        return {
            "discriminator_latent": Draw(Purpose.DISCRIMINATOR_LATENT, self.latent_dim),
            "generator_latent": Draw(Purpose.GENERATOR_LATENT, self.latent_dim),
        }

    def state(self) -> dict[str, Tensor]:
        """The statistics as the step before left them; the same tensors serve every phase of the step."""
        return {}

    def latent_state(self) -> dict[str, Tensor]:
        """What using the trained model needs besides the networks: ``variance``, ``scale``, as far as there is one."""
        return {}

    def summary(self) -> dict[str, Tensor]:
        """0-dim numbers of the running statistics, for reports."""
        return {}


def discriminate(
    discriminator: nn.Module, x: Tensor, weight: float, penalise: bool
) -> tuple[Discrimination, Tensor | None]:
    """One forward pass, with the squared input gradient of the adversarial value where it is to be penalised.

    Args:
        x: ``[b, …]``.
        weight: of the penalty; 0 computes none.

    Returns:
        D's outputs, and ``[b]`` ‖∇_x a(x)‖² or None.
    """
    if not (penalise and weight > 0):
        return discriminator(x), None
    return discriminate_with_gradient(discriminator, x, adversarial_value)


def adversarial_value(output: Discrimination) -> Tensor:
    """``[b]`` the one adversarial value a(x) of the methods without categories, in float32 or above."""
    return at_least_float32(output.adversarial.squeeze(1))


def even_stream_batch(stream_batch: int, why: str) -> None:
    """Refuse an odd batch a stream."""
    if stream_batch % 2:
        raise UserError(
            f"{why} halves each stream's batch, which is {stream_batch}: choose distributed.streams so that"
            " training.batch / distributed.streams is even"
        )


def total(terms: Mapping[str, tuple[float, Tensor]]) -> Tensor:
    """Σ weight · term, leaving terms of weight 0 out of the graph."""
    weighted = [value if weight == 1 else weight * value for weight, value in terms.values() if weight != 0]
    return reduce(torch.add, weighted)
