"""InfoGAN with continuous codes: the encoder minimises a Gaussian's negative log-likelihood (Cho 2025, eq. 16-18).

L_enc = avg(lv + (z − E)² / (e^lv + 1e-7)) with E, lv = E(G(z)), E_lv(G(z)), s = 1; L_d = adv + λ_enc L_enc + λ_r R and
L_g = adv + λ_enc L_enc.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from latentscale.latents.priors import Prior
from latentscale.losses.inversion import latent_nll
from latentscale.methods.encoders import DiscriminatorPhase, EncoderMethod, EncoderSettings, GeneratorPhase
from latentscale.methods.passes import Pass
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.spec import ModelSpec


def latent_loss(z: Tensor, fake: Pass) -> Tensor:
    """L_enc of latents z ``[b, d_z]`` and D's pass over their fakes, 0-dim."""
    assert fake.output.log_variance is not None
    return latent_nll(z, fake.latent, fake.output.log_variance)


class InfoGAN(EncoderMethod):
    """Latent regression with a predicted variance."""

    name = "infogan"
    paper = "Chen et al. 2016; Cho 2025, §2.2, eq. 16"

    def __init__(
        self, settings: EncoderSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        g, d = {"generator": networks["generator"]}, {"discriminator": networks["discriminator"]}
        self.phases = [DiscriminatorPhase(d, g, settings, latent_loss), GeneratorPhase(g, d, settings, latent_loss)]

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=1, latent=spec.latent_dim, log_variance=spec.latent_dim)
