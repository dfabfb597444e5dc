"""What a method is: networks, running statistics, draws, and a list of phases whose forward is the loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from latentscale.errors import UserError
from latentscale.latents.draws import Purpose
from latentscale.latents.priors import Prior
from latentscale.latents.scale import at_least_float32
from latentscale.losses.adversarial import ADVERSARIAL
from latentscale.losses.penalties import discriminate_with_gradient
from latentscale.networks.build import NetworkSettings, build_discriminator, build_generator
from latentscale.networks.outputs import Discrimination, Heads
from latentscale.networks.spec import ModelSpec
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
        kept: what the method prepared, or an earlier phase of this step kept, for this micro-batch.
        streams: number of streams; ``x.unflatten(0, (-1, streams))`` parts them, ``[b, streams, …]``.
        penalise: whether this step carries the gradient penalties.
        labels: ``[b · streams, d_l]`` int64 categories of the reals, None where the method needs none.
        schedule: what changes with the step and is no tensor, by name (see `Method.schedule`).
    """

    real: Tensor
    draws: dict[str, Tensor]
    state: dict[str, Tensor]
    kept: dict[str, Tensor]
    streams: int
    penalise: bool
    labels: Tensor | None = None
    schedule: Mapping[str, float] = MappingProxyType({})


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
    """One seeded draw a step: its purpose (the key of its generator), elements a sample, and their quantile function.

    Attributes:
        quantile: uniforms in (0, 1) to elements; None is that of the method's prior.
    """

    purpose: Purpose
    size: int
    quantile: Callable[[Tensor], Tensor] | None = None


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

    Owned networks are registered, so that DDP sees their parameters; borrowed ones are hidden in a tuple.
    """

    name: ClassVar[str]

    def __init__(self, owned: Mapping[str, nn.Module], borrowed: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._hidden: tuple[dict[str, nn.Module]] = ({},)
        self.own(**owned)
        self.borrow(**borrowed)

    def own(self, **networks: nn.Module) -> None:
        """Train these networks too; as attributes they have their names."""
        for name, network in networks.items():
            self.add_module(name, network)
        # listed once: walking the modules every step would take longer than many a kernel
        self.owned_parameters = list(self.parameters())

    def borrow(self, **networks: nn.Module) -> None:
        """Use these networks too, frozen."""
        self._hidden[0].update(networks)
        self.borrowed_parameters = [p for network in self._hidden[0].values() for p in network.parameters()]

    def borrowed(self, name: str) -> nn.Module:
        """A network of another phase, frozen while this one runs."""
        return self._hidden[0][name]

    def train_only_owned(self) -> None:
        """Freeze what is borrowed; must be called before each of this phase's forward passes."""
        for parameter in self.borrowed_parameters:
            parameter.requires_grad = False
        for parameter in self.owned_parameters:
            parameter.requires_grad = True

    def parameter_groups(self) -> list[ParameterGroup]:
        """The phase's parameters for its optimizer; together they must be all of them, each once."""
        return [ParameterGroup(list(self.parameters()))]

    def sleepers(self) -> list[nn.Parameter]:
        """Owned parameters that do not move in steps in which they are asleep: their reduced gradients are dropped."""
        return []

    def asleep(self, schedule: Mapping[str, float]) -> bool:
        """Whether the sleepers stay as they are in this step."""
        return False

    @abstractmethod
    def forward(self, batch: Batch) -> Terms:
        """All forward passes and penalties of the phase, in one call."""


class Method(ABC):
    """A method: built from its settings and networks, it says what to draw, what to observe and what to do.

    Args:
        settings: an instance of the method's own ``Settings``.
        networks: what `build_networks` returned, initialised.
        prior: law of each latent element.
        spec: sizes.

    Attributes:
        networks: by name, all that is trained and saved.
        statistics: by name, what moves with every step besides the weights.
        phases: in the order of a step.
        labelled: whether reals come with labels, whose sizes are then the categories of the spec.
        categorical: whether categories without labels are among the latents; their sizes are ``latent.categories``.
        categories_optional: whether a categorical method also works without them, ``latent.categories`` being empty.
        frozen_generator: whether the generator is a finished one, that of the run in ``method.generator_run``.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    inverts: ClassVar[bool] = False
    generates: ClassVar[bool] = True
    maps: ClassVar[bool] = False
    dynamic_scale: ClassVar[bool] = False
    labelled: ClassVar[bool] = False
    categorical: ClassVar[bool] = False
    categories_optional: ClassVar[bool] = False
    frozen_generator: ClassVar[bool] = False

    networks: dict[str, nn.Module]
    statistics: dict[str, Statistic]
    phases: list[Phase]

    @property
    def generates_by_category(self) -> bool:
        """Whether the generator takes categories."""
        return "category_prior" in self.latent_state()

    def __init__(self, settings: Any, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec) -> None:
        self.settings = settings
        self.networks = dict(networks)
        self.prior = prior
        self.spec = spec
        self.statistics = {}
        self.phases = []

    @classmethod
    def build_networks(cls, settings: Any, network: NetworkSettings, spec: ModelSpec) -> dict[str, nn.Module]:
        """The networks by name, their parameters zero until initialised or loaded.

        Raises:
            UserError: naming the ``network.*`` key, where the family cannot make them.
        """
        return {
            "generator": build_generator(network, spec.latent_dim, spec.shape),
            "discriminator": build_discriminator(network, spec.latent_dim, spec.shape, cls.heads(spec)),
        }

    @classmethod
    @abstractmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        """The discriminator's heads that this method trains."""

    @classmethod
    def validate(cls, settings: Any, law: str, stream_batch: int) -> None:
        """Refuse what this method's mathematics cannot work with, naming the key.

        Raises:
            UserError: with the remedy.
        """

    def draws(self) -> dict[str, Draw]:
        """What is drawn in a step, for each sample."""
        return {
            "discriminator_latent": Draw(Purpose.DISCRIMINATOR_LATENT, self.spec.latent_dim),
            "generator_latent": Draw(Purpose.GENERATOR_LATENT, self.spec.latent_dim),
        }

    def schedule(self, step: int, stream_batch: int) -> dict[str, float]:
        """Numbers that change with the step, by name: counts, switches (0 or 1).

        A compiled phase is traced anew for every number that is not an integer, and once for all integers.

        Args:
            step: counted from 0.
            stream_batch: b, samples of a stream.
        """
        return {}

    def prepare(self, batch: Batch) -> dict[str, Tensor]:
        """Per-sample tensors ``[n, …]`` whose mean over the global batch the step needs before its first phase.

        Called without gradients for every micro-batch; nothing (the default) costs nothing.
        """
        return {}

    def prepared(self, batch: Batch, samples: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the phases find in ``batch.kept``.

        Args:
            samples: what `prepare` returned for this micro-batch.
            means: of each over the global batch, ``[…]``.
        """
        return {}

    def state(self) -> dict[str, Tensor]:
        """The statistics as the step before left them; the same tensors serve every phase of the step."""
        return {}

    def latent_state(self) -> dict[str, Tensor]:
        """What using the trained model needs besides the networks.

        ``variance``, ``scale``, ``category_prior`` (P(C), ``[Σ d_c]``), as far as there is one.
        """
        return {}

    def mapped(self, latent: Tensor) -> Tensor:
        """Latents ``[n, d_z]`` as the prior gives them to those that `encode` predicts: themselves, but for InvGAN."""
        return latent

    def encode(self, sample: Tensor) -> Tensor:
        """E(x): ``[n, *shape]`` to ``[n, d_z]`` unscaled latents; of methods that invert."""
        latent: Tensor = self.networks["discriminator"](sample).latent
        return latent

    def decode(self, scaled: Tensor, category: Tensor | None = None) -> Tensor:
        """G: scaled latents ``[n, d_z]``, and categories where it takes them, to ``[n, *shape]``, not clipped."""
        generator = self.networks["generator"]
        samples: Tensor = generator(scaled) if category is None else generator(scaled, category)
        return samples

    def summary(self) -> dict[str, Tensor]:
        """0-dim numbers of the running statistics, for reports."""
        return {}


def in_streams(discriminator: nn.Module, batch: Batch) -> Callable[[Tensor], Discrimination]:
    """D on rows of a micro-batch: layers that look at a whole batch, where it has any, look at each stream alone."""
    if not getattr(discriminator, "batchwise", False):
        return discriminator
    return partial(discriminator, streams=batch.streams)


def discriminate(
    discriminator: Callable[[Tensor], Discrimination],
    x: Tensor,
    weight: float,
    penalise: bool,
    value: Callable[[Discrimination], Tensor],
) -> tuple[Discrimination, Tensor | None]:
    """One forward pass, with the squared input gradient of the adversarial value where it is to be penalised.

    Args:
        x: ``[b, …]``.
        weight: of the penalty; 0 computes none.
        value: ``[b]`` the value that training uses.

    Returns:
        D's outputs, and ``[b]`` ‖∇_x a(x)‖² or None.
    """
    if not (penalise and weight > 0):
        return discriminator(x), None
    return discriminate_with_gradient(discriminator, x, value)


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
