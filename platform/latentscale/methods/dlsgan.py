"""DLSGAN: the latent is scaled by how well each element can be recovered (Cho 2025, eq. 31-35, alg. 2).

G sees z∘s with s = sqrt(d_z · v / Σ v), v the running second moment of E(fake);
L_enc = avg(((z − E(G(z∘s)))∘s)²). The one s of a step serves both phases.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentscale.latents.priors import Prior
from latentscale.losses.inversion import scaled_latent_mse
from latentscale.methods.encoders import EncoderMethod, EncoderSettings
from latentscale.methods.passes import adversarial_terms, compared_reals, discriminate, generator_loss, scores
from latentscale.methods.phase import Batch, Phase, Terms, weighted_terms
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting


@dataclass
class DLSGANSettings(EncoderSettings):
    encoder_in_generator: bool = setting(
        True, "whether L_enc is in the generator's loss too (Cho 2025, fig. 22, compares both)"
    )


class DiscriminatorPhase(Phase):
    """L_d = adv + λ_enc L_enc + λ_r R."""

    name = "discriminator"
    settings: DLSGANSettings
    discriminator: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, z, s = self.settings, batch.draws["discriminator_latent"], batch.state["scale"]
        with torch.no_grad():
            images = self.borrowed("generator")(z * s)
        real = discriminate(self.discriminator, batch.real, batch, settings.r1)
        fake = discriminate(self.discriminator, images, batch, settings.r2)
        return weighted_terms(
            {
                **adversarial_terms(settings, real, fake),
                "encoder": (settings.encoder_weight, scaled_latent_mse(z, fake.latent, s)),
            },
            observed={"variance": fake.latent},
            measured=scores(real, fake),
        )


class GeneratorPhase(Phase):
    """L_g = adv + λ_enc L_enc, or adv alone; the gradient of L_enc passes through D's predicted latent into G."""

    name = "generator"
    settings: DLSGANSettings
    generator: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, z, s = self.settings, batch.draws["generator_latent"], batch.state["scale"]
        discriminator = self.borrowed("discriminator")
        real = compared_reals(settings, discriminator, batch)
        fake = discriminate(discriminator, self.generator(z * s), batch)
        encoder_weight = settings.encoder_weight if settings.encoder_in_generator else 0.0
        return weighted_terms(
            {
                "adversarial": (1.0, generator_loss(settings, real, fake)),
                "encoder": (encoder_weight, scaled_latent_mse(z, fake.latent, s)),
            },
            observed={"variance": fake.latent},
        )


class DLSGAN(EncoderMethod):
    """Dynamic latent scale GAN."""

    name = "dlsgan"
    paper = "Cho 2025, §3.2, eq. 31-35, alg. 2"
    Settings = DLSGANSettings
    dynamic_scale = True

    def __init__(
        self, settings: DLSGANSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        g, d = {"generator": networks["generator"]}, {"discriminator": networks["discriminator"]}
        self.phases = [DiscriminatorPhase(d, g, settings), GeneratorPhase(g, d, settings)]

    def state(self) -> dict[str, Tensor]:
        return {"scale": self.latent_scale.scale()}
