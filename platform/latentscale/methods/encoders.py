"""What methods whose D is also an encoder share: v follows D's predictions of the fakes' latents.

MSEGAN and InfoGAN share their phases too: L_d = adv + λ_enc L_enc + λ_r R and L_g = adv + λ_enc L_enc with s = 1
(Cho 2025, eq. 17-18); each method's file gives its L_enc.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from latentscale.latents.priors import Prior
from latentscale.latents.scale import LatentScale
from latentscale.methods.base import Method, MethodSettings, refuse_paired
from latentscale.methods.passes import (
    Pass,
    adversarial_terms,
    compared_reals,
    discriminate,
    generator_loss,
    predicted,
    scores,
)
from latentscale.methods.phase import Batch, Phase, Terms, weighted_terms
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.factory import NetworkSettings, build_discriminator, build_generator
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting

LatentLoss = Callable[[Tensor, Pass], Tensor]
"""L_enc, 0-dim, of the latents z ``[b, d_z]`` and D's pass over G(z)."""


@dataclass
class EncoderSettings(MethodSettings):
    encoder_weight: float = setting(1.0, "λ_enc, weight of L_enc", above=0)
    variance_start: float = setting(1e-4, "every element of v at the start", above=0)
    variance_decay: float = setting(0.999, "decay of v per step", minimum=0, maximum=1)


class LatentLossPhase(Phase):
    """A phase that is given its L_enc."""

    settings: EncoderSettings

    def __init__(
        self,
        owned: Mapping[str, nn.Module],
        borrowed: Mapping[str, nn.Module],
        settings: EncoderSettings,
        latent_loss: LatentLoss,
    ) -> None:
        super().__init__(owned, borrowed, settings)
        self.latent_loss = latent_loss


class DiscriminatorPhase(LatentLossPhase):
    """L_d = adv + λ_enc L_enc + λ_r R, with the given L_enc."""

    name = "discriminator"
    discriminator: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, z = self.settings, batch.draws["discriminator_latent"]
        with torch.no_grad():
            images = self.borrowed("generator")(z)
        real = discriminate(self.discriminator, batch.real, batch, settings.r1)
        fake = discriminate(self.discriminator, images, batch, settings.r2)
        return weighted_terms(
            {
                **adversarial_terms(settings, real, fake),
                "encoder": (settings.encoder_weight, self.latent_loss(z, fake)),
            },
            observed={"variance": fake.latent},
            measured=scores(real, fake),
        )


class GeneratorPhase(LatentLossPhase):
    """L_g = adv + λ_enc L_enc; its gradient passes through D's predicted latent into G."""

    name = "generator"
    generator: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, z, discriminator = self.settings, batch.draws["generator_latent"], self.borrowed("discriminator")
        real = compared_reals(settings, discriminator, batch)
        fake = discriminate(discriminator, self.generator(z), batch)
        return weighted_terms(
            {
                "adversarial": (1.0, generator_loss(settings, real, fake)),
                "encoder": (settings.encoder_weight, self.latent_loss(z, fake)),
            },
            observed={"variance": fake.latent},
        )


class EncoderMethod(Method):
    """A method whose discriminator is also an encoder, with the running second moment v of E(fake)."""

    Settings = EncoderSettings
    inverts = True

    def __init__(
        self, settings: EncoderSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        scale = LatentScale(spec.latent_dim, settings.variance_start, settings.variance_decay)
        self.statistics["variance"] = scale

    @property
    def latent_scale(self) -> LatentScale:
        """v, and the scale s computed from it."""
        return cast(LatentScale, self.statistics["variance"])

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


class SeparateEncoderMethod(Method):
    """A generator and an encoder with D's architecture, without a discriminator."""

    adversarial = False
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

    @classmethod
    def validate(cls, settings: Any, law: str, stream_batch: int) -> None:
        refuse_paired(settings, cls.name)

    def encode(self, sample: Tensor) -> Tensor:
        return predicted(self.networks["encoder"](sample))
