"""DLSGAN: the latent is scaled by how well each element can be recovered (T eq. 31-35, alg. 2).

G sees z∘s with s = sqrt(d_z · v / Σ v), v the running second moment of E(fake);
L_enc = avg(((z − E(G(z∘s)))∘s)²). The one s of a step serves both phases.
"""

from dataclasses import dataclass

from torch import Tensor

from latentscale.losses.inversion import scaled_latent_mse
from latentscale.methods import encoders
from latentscale.methods.phase import Batch
from latentscale.networks.discriminator_output import DiscriminatorOutput
from latentscale.settings import setting


@dataclass
class DLSGANSettings(encoders.EncoderSettings):
    encoder_in_generator: bool = setting(True, "whether L_enc is in the generator's loss too (T fig. 22 compares)")


class ScaledLoss(encoders.EncoderLoss):
    def encoder_loss(self, latent: Tensor, fake: DiscriminatorOutput, batch: Batch) -> Tensor:
        return scaled_latent_mse(latent, encoders.predicted(fake), batch.state["scale"])


class DiscriminatorPhase(ScaledLoss, encoders.DiscriminatorPhase):
    """L_d = adv + λ_enc L_enc + λ_r R."""


class GeneratorPhase(ScaledLoss, encoders.GeneratorPhase):
    """L_g = adv + λ_enc L_enc, or adv alone."""

    settings: DLSGANSettings

    def encoder_terms(self, latent: Tensor, fake: DiscriminatorOutput, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        weight = self.settings.encoder_weight if self.settings.encoder_in_generator else 0.0
        return {"encoder": (weight, self.encoder_loss(latent, fake, batch))}


class DLSGAN(encoders.EncoderMethod):
    """Dynamic latent scale GAN."""

    name = "dlsgan"
    paper = "T §3.2, eq. 31-35, alg. 2"
    Settings = DLSGANSettings
    dynamic_scale = True
    discriminator_phase = DiscriminatorPhase
    generator_phase = GeneratorPhase

    def state(self) -> dict[str, Tensor]:
        return {"scale": self.latent_scale.scale()}
