"""PVDGAN, perceptual VAE DLSGAN: half of the latents are the reals' own predictions (Cho 2025, eq. 38-41, alg. 4).

D's step is DLSGAN's and keeps z_r = stop(E(x)), y_r = stop(F(x)) of the first half of each stream. In G's step
z_x = z_r + ε∘sqrt(max(1 − v, 0)) is the first half and a fresh draw the second; the adversarial loss is over all,
L_enc over the second half, L_rec = avg((y_r − F(G(z_x∘s)))²) over the first. No pass beyond DLSGAN's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentscale.errors import UserError
from latentscale.latents.priors import Prior
from latentscale.losses.inversion import feature_mse, scaled_latent_mse
from latentscale.methods.base import even_stream_batch
from latentscale.methods.encoders import EncoderMethod, EncoderSettings
from latentscale.methods.passes import (
    adversarial_terms,
    compared_reals,
    discriminate,
    first_half,
    generator_loss,
    halves,
    scores,
    second_half,
)
from latentscale.methods.phase import Batch, Phase, Terms, weighted_terms
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting


@dataclass
class PVDGANSettings(EncoderSettings):
    reconstruction_weight: float = setting(1.0, "λ_rec, weight of L_rec in the generator's loss", minimum=0)


class DiscriminatorPhase(Phase):
    """L_d = adv + λ_enc L_enc + λ_r R, keeping E(x) and F(x) of half of the reals, from before D's update."""

    name = "discriminator"
    settings: PVDGANSettings
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
            kept={"latent": first_half(real.latent), "features": first_half(real.features)},
            observed={"variance": fake.latent},
            measured=scores(real, fake),
        )


class GeneratorPhase(Phase):
    """L_g = adv + λ_enc L_enc + λ_rec L_rec."""

    name = "generator"
    settings: PVDGANSettings
    generator: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, s, v = self.settings, batch.state["scale"], batch.state["variance"]
        discriminator, z_r, y_r = self.borrowed("discriminator"), batch.kept["latent"], batch.kept["features"]
        noise, fresh = halves(batch.draws["generator_latent"])  # both halves of one N(0, 1) draw: ε and z
        z = torch.cat([z_r + noise * (1 - v).clamp(min=0).sqrt(), fresh])
        real = compared_reals(settings, discriminator, batch)
        fake = discriminate(discriminator, self.generator(z * s), batch)
        rebuilt, recovered = first_half(fake.features), second_half(fake.latent)
        return weighted_terms(
            {
                "adversarial": (1.0, generator_loss(settings, real, fake)),
                "encoder": (settings.encoder_weight, scaled_latent_mse(fresh, recovered, s)),
                "reconstruction": (settings.reconstruction_weight, feature_mse(y_r, rebuilt)),
            },
            observed={"variance": recovered},
        )


class PVDGAN(EncoderMethod):
    """Perceptual VAE dynamic latent scale GAN."""

    name = "pvdgan"
    paper = "Cho 2025, §3.3, eq. 38-41, alg. 4"
    Settings = PVDGANSettings
    dynamic_scale = True

    def __init__(
        self, settings: PVDGANSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        g, d = {"generator": networks["generator"]}, {"discriminator": networks["discriminator"]}
        self.phases = [DiscriminatorPhase(d, g, settings), GeneratorPhase(g, d, settings)]

    @classmethod
    def validate(cls, settings: PVDGANSettings, law: str, stream_batch: int) -> None:
        even_stream_batch(stream_batch, "pvdgan")
        if law != "normal":
            raise UserError(
                f"latent.law={law}: pvdgan adds normal noise to its predictions, which needs a normal prior: set"
                " latent.law=normal"
            )

    def state(self) -> dict[str, Tensor]:
        return {"scale": self.latent_scale.scale(), "variance": self.latent_scale.variance}
