"""InfoGAN with continuous codes: the encoder minimises a Gaussian's negative log-likelihood (T eq. 16-18).

L_enc = avg(lv + (z − E)² / (e^lv + 1e-7)) with E, lv = E(G(z)), E_lv(G(z)); s = 1.
"""

from torch import Tensor

from latentscale.losses.inversion import latent_nll
from latentscale.methods import encoders
from latentscale.methods.phase import Batch
from latentscale.networks.discriminator_output import DiscriminatorOutput, Heads
from latentscale.networks.spec import ModelSpec


class NLLLoss(encoders.EncoderLoss):
    def encoder_loss(self, latent: Tensor, fake: DiscriminatorOutput, batch: Batch) -> Tensor:
        assert fake.log_variance is not None
        return latent_nll(latent, encoders.predicted(fake), fake.log_variance)


class DiscriminatorPhase(NLLLoss, encoders.DiscriminatorPhase):
    """L_d = adv + λ_enc L_enc + λ_r R."""


class GeneratorPhase(NLLLoss, encoders.GeneratorPhase):
    """L_g = adv + λ_enc L_enc."""


class InfoGAN(encoders.EncoderMethod):
    """Latent regression with a predicted variance."""

    name = "infogan"
    paper = "Chen et al. 2016; T §2.2, eq. 16"
    discriminator_phase = DiscriminatorPhase
    generator_phase = GeneratorPhase

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=1, latent=spec.latent_dim, log_variance=spec.latent_dim)
