"""PVDGAN, perceptual VAE DLSGAN: half of the latents are the reals' own predictions (T eq. 38-41, alg. 4).

D's step is DLSGAN's and keeps z_r = stop(E(x)), y_r = stop(F(x)) of the first half of each stream. In G's step
z_x = z_r + ε∘sqrt(max(1 − v, 0)) is the first half and a fresh draw the second; the adversarial loss is over all,
L_enc over the second half, L_rec = avg((y_r − F(G(z_x∘s)))²) over the first. No pass beyond DLSGAN's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from latentscale.errors import UserError
from latentscale.losses.inversion import feature_mse, scaled_latent_mse
from latentscale.methods import dlsgan, encoders
from latentscale.methods.base import even_stream_batch
from latentscale.methods.halves import first_half, second_half
from latentscale.methods.phase import Batch
from latentscale.networks.discriminator_output import DiscriminatorOutput
from latentscale.settings import setting


@dataclass
class PVDGANSettings(encoders.EncoderSettings):
    reconstruction_weight: float = setting(1.0, "λ_rec, weight of L_rec in the generator's loss", minimum=0)


class DiscriminatorPhase(dlsgan.DiscriminatorPhase):
    """L_d = adv + λ_enc L_enc + λ_r R, keeping what E and F say of the reals before D's update."""

    def kept(self, real: DiscriminatorOutput, batch: Batch) -> dict[str, Tensor]:
        return {
            "latent": first_half(encoders.predicted(real).detach()),
            "features": first_half(real.features.detach()),
        }


class GeneratorPhase(encoders.GeneratorPhase):
    """L_g = adv + λ_enc L_enc + λ_rec L_rec."""

    settings: PVDGANSettings

    def latent(self, batch: Batch) -> Tensor:
        # both halves of the one N(0, 1) draw are used: ε for the first, z for the second
        noise = first_half(batch.draws["generator_latent"])
        fresh = second_half(batch.draws["generator_latent"])
        variance = batch.state["variance"]
        posterior = batch.kept["latent"] + noise * (1 - variance).clamp(min=0).sqrt()
        return torch.cat([posterior, fresh])

    def encoder_terms(self, latent: Tensor, fake: DiscriminatorOutput, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        fresh = second_half(latent)
        recovered = second_half(encoders.predicted(fake))
        features = first_half(fake.features)
        return {
            "encoder": (
                self.settings.encoder_weight,
                scaled_latent_mse(fresh, recovered, batch.state["scale"]),
            ),
            "reconstruction": (
                self.settings.reconstruction_weight,
                feature_mse(batch.kept["features"], features),
            ),
        }

    def observed(self, fake: DiscriminatorOutput, batch: Batch) -> dict[str, Tensor]:
        return {"variance": second_half(encoders.predicted(fake).detach())}


class PVDGAN(encoders.EncoderMethod):
    """Perceptual VAE dynamic latent scale GAN."""

    name = "pvdgan"
    paper = "T §3.3, eq. 38-41, alg. 4"
    Settings = PVDGANSettings
    dynamic_scale = True
    discriminator_phase = DiscriminatorPhase
    generator_phase = GeneratorPhase

    @classmethod
    def validate(cls, settings: PVDGANSettings, law: str, stream_batch: int) -> None:
        even_stream_batch(stream_batch, "pvdgan")
        if law != "normal":
            raise UserError(f"latent.law={law}: pvdgan fills predictions up to N(0, 1): set latent.law=normal")

    def state(self) -> dict[str, Tensor]:
        return {"scale": self.latent_scale.scale(), "variance": self.latent_scale.variance}
