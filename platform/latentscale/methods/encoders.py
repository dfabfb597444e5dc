"""What MSEGAN, InfoGAN, DLSGAN and PVDGAN share: D predicts the latent, and v follows its predictions.

L_d = adv + λ_enc L_enc + λ_r R and L_g = adv + λ_enc L_enc (T eq. 17-18, 34-35); each method's file says its
L_enc.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from latentscale.latents.priors import Prior
from latentscale.latents.scale import LatentScale
from latentscale.methods import adversarial
from latentscale.methods.base import Method, MethodSettings
from latentscale.methods.phase import Batch
from latentscale.networks.discriminator_output import DiscriminatorOutput, Heads
from latentscale.networks.factory import NetworkSettings, build_discriminator, build_generator
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting


@dataclass
class EncoderSettings(MethodSettings):
    encoder_weight: float = setting(1.0, "λ_enc, weight of L_enc", above=0)
    variance_start: float = setting(1e-4, "every element of v at the start", above=0)
    variance_decay: float = setting(0.999, "a step's decay of v", minimum=0, maximum=1)


class EncoderLoss:
    """L_enc of one method, used by both of its phases."""

    @abstractmethod
    def encoder_loss(self, latent: Tensor, fake: DiscriminatorOutput, batch: Batch) -> Tensor:
        """0-dim: from ``[b, d_z]`` latents z and what D predicts of their fakes."""


class DiscriminatorPhase(EncoderLoss, adversarial.DiscriminatorPhase):
    """D's step with the encoder term on all fakes."""

    settings: EncoderSettings

    def encoder_terms(self, latent: Tensor, fake: DiscriminatorOutput, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        return {"encoder": (self.settings.encoder_weight, self.encoder_loss(latent, fake, batch))}

    def observed(self, fake: DiscriminatorOutput, batch: Batch) -> dict[str, Tensor]:
        return {"variance": predicted(fake).detach()}


class GeneratorPhase(EncoderLoss, adversarial.GeneratorPhase):
    """G's step with the encoder term; its gradient passes through D's predicted latent into G."""

    settings: EncoderSettings

    def encoder_terms(self, latent: Tensor, fake: DiscriminatorOutput, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        return {"encoder": (self.settings.encoder_weight, self.encoder_loss(latent, fake, batch))}

    def observed(self, fake: DiscriminatorOutput, batch: Batch) -> dict[str, Tensor]:
        return {"variance": predicted(fake).detach()}


class EncoderMethod(Method):
    """A method whose discriminator is also an encoder, with the running second moment v of E(fake)."""

    Settings = EncoderSettings
    inverts = True
    discriminator_phase: ClassVar[type[DiscriminatorPhase]]
    generator_phase: ClassVar[type[GeneratorPhase]]

    def __init__(
        self, settings: EncoderSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        players = self.networks["generator"], self.networks["discriminator"]
        self.latent_scale = LatentScale(spec.latent_dim, settings.variance_start, settings.variance_decay)
        self.statistics = {"variance": self.latent_scale}
        self.phases = [
            self.discriminator_phase(settings, *players, spec.categories),
            self.generator_phase(settings, *players, spec.categories),
        ]

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=1, latent=spec.latent_dim)

    def latent_state(self) -> dict[str, Tensor]:
        return {"variance": self.latent_scale.variance, **self.state()}

    def summary(self) -> dict[str, Tensor]:
        state = self.latent_state()
        numbers: dict[str, Tensor] = {}
        for name, vector in ((name, state[name]) for name in ("variance", "scale") if name in state):
            numbers |= {
                f"{name}/min": vector.min(),
                f"{name}/median": vector.median(),
                f"{name}/max": vector.max(),
            }
        if "scale" in state:
            numbers["latent_entropy_nats"] = self.latent_scale.entropy(self.prior)
        return {**numbers, "effective_dimensions": self.latent_scale.effective_dimensions()}


def predicted(output: DiscriminatorOutput) -> Tensor:
    """``[b, d_z]`` E(x), which the methods here always build."""
    assert output.latent is not None
    return output.latent


class SeparateEncoderMethod(Method):
    """A generator and an encoder with D's architecture, without a discriminator."""

    inverts = True

    @classmethod
    def build_networks(cls, settings: Any, network: NetworkSettings, spec: ModelSpec) -> dict[str, nn.Module]:
        return {
            "generator": build_generator(network, spec.latent_dim, spec.shape),
            "encoder": build_discriminator(network, spec.latent_dim, spec.shape, cls.heads(spec)),
        }

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=0, latent=spec.latent_dim)

    def encode(self, sample: Tensor) -> Tensor:
        return predicted(self.networks["encoder"](sample))
