"""MSEGAN: the encoder minimises the squared error of the latent (Cho 2025, eq. 15, 17-18).

L_enc = avg((z − E(G(z)))²), s = 1; L_d = adv + λ_enc L_enc + λ_r R and L_g = adv + λ_enc L_enc.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from latentscale.latents.priors import Prior
from latentscale.losses.inversion import latent_mse
from latentscale.methods.encoders import DiscriminatorPhase, EncoderMethod, EncoderSettings, GeneratorPhase
from latentscale.methods.passes import Pass
from latentscale.networks.spec import ModelSpec


def latent_loss(z: Tensor, fake: Pass) -> Tensor:
    """L_enc of latents z ``[b, d_z]`` and D's pass over their fakes, 0-dim."""
    return latent_mse(z, fake.latent)


class MSEGAN(EncoderMethod):
    """Latent regression by mean squared error."""

    name = "msegan"
    paper = "Cho 2025, §2.2, eq. 15"

    def __init__(
        self, settings: EncoderSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        g, d = {"generator": networks["generator"]}, {"discriminator": networks["discriminator"]}
        self.phases = [DiscriminatorPhase(d, g, settings, latent_loss), GeneratorPhase(g, d, settings, latent_loss)]
