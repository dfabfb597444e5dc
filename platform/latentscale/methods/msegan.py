"""MSEGAN: the encoder minimises the squared error of the latent (T eq. 15, 17-18).

L_enc = avg((z − E(G(z)))²), s = 1.
"""

from torch import Tensor

from latentscale.losses.inversion import latent_mse
from latentscale.methods import encoders
from latentscale.methods.phase import Batch
from latentscale.networks.discriminator_output import DiscriminatorOutput


class MSELoss(encoders.EncoderLoss):
    def encoder_loss(self, latent: Tensor, fake: DiscriminatorOutput, batch: Batch) -> Tensor:
        return latent_mse(latent, encoders.predicted(fake))


class DiscriminatorPhase(MSELoss, encoders.DiscriminatorPhase):
    """L_d = adv + λ_enc L_enc + λ_r R."""


class GeneratorPhase(MSELoss, encoders.GeneratorPhase):
    """L_g = adv + λ_enc L_enc."""


class MSEGAN(encoders.EncoderMethod):
    """Latent regression by mean squared error."""

    name = "msegan"
    paper = "T §2.2, eq. 15"
    discriminator_phase = DiscriminatorPhase
    generator_phase = GeneratorPhase
