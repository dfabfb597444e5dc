"""A method: networks, running statistics, draws, and a list of phases whose forward is the loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from latentscale.errors import UserError
from latentscale.latents.draws import Purpose
from latentscale.latents.priors import Prior
from latentscale.latents.statistic import Statistic
from latentscale.losses.adversarial import ADVERSARIAL
from latentscale.methods.phase import Batch, Phase
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.factory import NetworkSettings, build_discriminator, build_generator
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting
from latentscale.wording import counted


@dataclass
class MethodSettings:
    """Settings of every method: the adversarial loss and the penalties on D."""

    adversarial: str = setting(
        "nonsaturating",
        "adversarial loss; relativistic compares each fake with a real; use it with r1 and r2",
        choices=tuple(ADVERSARIAL),
    )
    r1: float = setting(3.0, "weight of R1 = mean ‖∇a‖² on reals, no factor ½", minimum=0)
    r2: float = setting(0.0, "weight of R2, the same on fakes", minimum=0)
    penalty_interval_steps: int = setting(1, "penalise every k steps, with k times the weight", unit="steps", minimum=1)


class Draw(NamedTuple):
    """One seeded draw per step.

    Attributes:
        purpose: the key of its random generator.
        size: elements per sample.
        quantile: uniforms in (0, 1) to elements; None is that of the method's prior.
    """

    purpose: Purpose
    size: int
    quantile: Callable[[Tensor], Tensor] | None = None


class Method(ABC):
    """A method, built from its settings and networks: what it draws, what it observes and what its phases compute.

    Args:
        settings: an instance of the method's own ``Settings``.
        networks: what `build_networks` returned, initialised.
        prior: law of each latent element.
        spec: sizes.

    Attributes:
        networks: by name, all that is trained and saved.
        statistics: by name, what each step updates besides the weights; this is the only place that holds them.
        phases: in the order of a step.
        adversarial: whether it trains a discriminator with the loss ``method.adversarial``.
        labelled: whether reals come with labels, whose sizes are then the categories of the spec.
        categorical: whether categories without labels are among the latents; their sizes are ``latent.categories``.
        categories_optional: whether a categorical method also works without them, ``latent.categories`` being empty.
        classifies: whether it learns to predict the labels of samples.
        unaveraged: networks that are evaluated with their own weights, not with the moving average, as published.
        frozen_generator: whether the generator is not trained but taken from the finished run in
            ``method.generator_run``.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    adversarial: ClassVar[bool] = True
    inverts: ClassVar[bool] = False
    generates: ClassVar[bool] = True
    dynamic_scale: ClassVar[bool] = False
    labelled: ClassVar[bool] = False
    categorical: ClassVar[bool] = False
    categories_optional: ClassVar[bool] = False
    classifies: ClassVar[bool] = False
    frozen_generator: ClassVar[bool] = False
    unaveraged: ClassVar[tuple[str, ...]] = ()

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
        """Check what this method's mathematics needs.

        Args:
            settings: an instance of the method's own ``Settings``.
            law: ``latent.law``.
            stream_batch: b, samples per stream.

        Raises:
            UserError: naming the key and the remedy.
        """

    @classmethod
    def remarks(cls, settings: Any, steps: int) -> list[str]:
        """Warnings, one line each, about settings that are allowed but probably not intended for that many steps."""
        if not (cls.adversarial and ADVERSARIAL[settings.adversarial].paired) or (settings.r1 > 0 and settings.r2 > 0):
            return []
        return [
            f"method.adversarial={settings.adversarial} is published with both penalties: set method.r1 and method.r2"
            " above 0"
        ]

    def draws(self) -> dict[str, Draw]:
        """What is drawn in a step, for each sample."""
        return {
            "discriminator_latent": Draw(Purpose.DISCRIMINATOR_LATENT, self.spec.latent_dim),
            "generator_latent": Draw(Purpose.GENERATOR_LATENT, self.spec.latent_dim),
        }

    def schedule(self, step: int, stream_batch: int) -> dict[str, float]:
        """Numbers that change with the step, by name: counts, switches (0 or 1).

        A compiled phase is traced once for all integers, but again for every other number.

        Args:
            step: counted from 0.
            stream_batch: b, samples per stream.
        """
        return {}

    def prepare(self, batch: Batch) -> dict[str, Tensor]:
        """Per-sample tensors ``[n, …]`` whose mean over the global batch the step needs before its first phase.

        Called without gradients for every micro-batch. An empty result, the default, costs nothing.
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
        """The statistics as the step before left them, by name, for ``batch.state``.

        Called once per step: the same tensors serve every micro-batch and every phase of it.
        """
        return {}

    def latent_state(self) -> dict[str, Tensor]:
        """What using the trained model needs besides the networks.

        ``variance``, ``scale`` and ``category_prior`` (P(C), ``[Σ d_c]``), where the method has them.
        """
        return {}

    def map_latent(self, latent: Tensor) -> Tensor:
        """Latents ``[n, d_z]`` of the prior to those that `encode` predicts: the same, except in InvGAN."""
        return latent

    def encode(self, sample: Tensor) -> Tensor:
        """E(x): ``[n, *shape]`` to ``[n, d_z]`` unscaled latents, for methods that invert."""
        latent: Tensor = self.networks["discriminator"](sample).latent
        return latent

    def classify(self, sample: Tensor) -> Tensor:
        """``[n, *shape]`` to ``[n, Σ d_c]`` logits of the labels, for methods that classify.

        Raises:
            UserError: for all other methods.
        """
        raise UserError(f"a model trained by {self.name} does not predict labels: train with classifier")

    def decode(self, scaled: Tensor, category: Tensor | None = None) -> Tensor:
        """G: scaled latents ``[n, d_z]``, and categories where it takes them, to ``[n, *shape]``, not clipped."""
        generator = self.networks["generator"]
        samples: Tensor = generator(scaled) if category is None else generator(scaled, category)
        return samples

    def summary(self) -> dict[str, Tensor]:
        """0-dim numbers of the running statistics, for reports."""
        return {}


def even_stream_batch(stream_batch: int, why: str) -> None:
    """Refuse an odd number of samples per stream.

    Raises:
        UserError: naming the key.
    """
    if stream_batch % 2:
        raise UserError(
            f"{why} splits each stream's batch into halves, and a stream has {counted(stream_batch, 'sample')}: choose"
            " distributed.streams so that training.batch / distributed.streams is even"
        )


def refuse_paired(settings: MethodSettings, name: str) -> None:
    """Refuse an adversarial loss that compares reals with fakes, for a method that has no adversary.

    Raises:
        UserError: naming the key.
    """
    if ADVERSARIAL[settings.adversarial].paired:
        raise UserError(
            f"method.adversarial={settings.adversarial}: {name} has no discriminator to compare reals with fakes:"
            " remove method.adversarial"
        )
