"""VAEGAN: a generator, a discriminator and a variational encoder, whose likelihood is on D's features.

Larsen et al. 2016; Cho 2025, eq. 19-24.

z_x = E(x) + ε∘e^{E_lv(x)/2} makes half of every fake batch, the prior the other half: in D's step from the second half
of each stream's reals, detached, in the step of G and E from the first. D minimises adv + λ_r R, G minimises
adv + λ_rec L_rec, E minimises λ_rec L_rec + λ_prr L_prr, with L_rec = avg((F(x) − F(G(z_x)))²), F(x) detached and from
D's step, and L_prr = avg(E² − E_lv + e^{E_lv}). G and E are trained together, by the gradient of one scalar

    adv + λ_rec L_rec + λ_prr L_prr − ⟨stop(∂adv/∂z_x), z_x⟩,

whose bracket cancels exactly the gradient that adv would give E.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentscale.errors import UserError
from latentscale.latents.priors import Prior
from latentscale.latents.scale import at_least_float32
from latentscale.losses.inversion import feature_mse
from latentscale.losses.reach import with_input_gradient
from latentscale.methods.base import Method, MethodSettings, even_stream_batch
from latentscale.methods.passes import (
    adversarial_terms,
    compared_reals,
    discriminate,
    first_half,
    generator_loss,
    halves,
    predicted,
    scores,
    second_half,
)
from latentscale.methods.phase import Batch, Phase, Terms, weighted_terms
from latentscale.networks.discriminator_output import DiscriminatorOutput, Heads
from latentscale.networks.factory import NetworkSettings, build_discriminator
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting


@dataclass
class VAEGANSettings(MethodSettings):
    reconstruction_weight: float = setting(1.0, "λ_rec, weight of L_rec for G and E", above=0)
    prior_weight: float = setting(1.0, "λ_prr, weight of L_prr for E; published: 0, 1, 10", minimum=0)


def posterior(encoder: nn.Module, real: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z_x ``[b, d_z]`` (Cho 2025, eq. 19) with the mean and log-variance that it is drawn from."""
    seen: DiscriminatorOutput = encoder(real)
    assert seen.log_variance is not None
    mean, log_variance = at_least_float32(predicted(seen)), at_least_float32(seen.log_variance)
    return mean + noise * (log_variance / 2).exp(), mean, log_variance


class DiscriminatorPhase(Phase):
    """L_d = adv + λ_r R, keeping F(x) of the first half of the reals, from before D's update."""

    name = "discriminator"
    settings: VAEGANSettings
    discriminator: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, (z, noise) = self.settings, halves(batch.draws["discriminator_latent"])
        with torch.no_grad():
            z_x, _, _ = posterior(self.borrowed("encoder"), second_half(batch.real), noise)
            images = self.borrowed("generator")(torch.cat([z, z_x]))
        real = discriminate(self.discriminator, batch.real, batch, settings.r1)
        fake = discriminate(self.discriminator, images, batch, settings.r2)
        return weighted_terms(
            adversarial_terms(settings, real, fake),
            kept={"features": first_half(real.features)},
            measured=scores(real, fake),
        )


class GeneratorPhase(Phase):
    """L_g = adv + λ_rec L_rec and L_e = λ_rec L_rec + λ_prr L_prr, each for its own network."""

    name = "generator"
    settings: VAEGANSettings
    generator: nn.Module
    encoder: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, discriminator = self.settings, self.borrowed("discriminator")
        noise, z = halves(batch.draws["generator_latent"])
        z_x, mean, log_variance = posterior(self.encoder, first_half(batch.real), noise)
        real = compared_reals(settings, discriminator, batch)

        def judge(z_x: Tensor) -> tuple[Tensor, Tensor]:
            fake = discriminate(discriminator, self.generator(torch.cat([z_x, z])), batch)
            return generator_loss(settings, real, fake), first_half(fake.features)

        adversarial, features, pull = with_input_gradient(judge, z_x)
        found = weighted_terms(
            {
                "adversarial": (1.0, adversarial),
                "reconstruction": (settings.reconstruction_weight, feature_mse(batch.kept["features"], features)),
                "prior": (settings.prior_weight, prior_loss(mean, log_variance)),
            }
        )
        # only the gradient of the bracket is wanted: subtracting its value keeps it out of the loss
        bracket = (pull * z_x).sum()
        return found._replace(loss=found.loss - (bracket - bracket.detach()))


def prior_loss(mean: Tensor, log_variance: Tensor) -> Tensor:
    """avg(E² − E_lv + e^{E_lv}) of ``[b, d_z]`` (Cho 2025, eq. 21).

    It is twice the KL divergence from N(0, 1) per element, plus 1.
    """
    return (mean.square() - log_variance + log_variance.exp()).mean()


class VAEGAN(Method):
    """Variational autoencoder and GAN in one; the encoder is a network of its own."""

    name = "vaegan"
    paper = "Larsen et al. 2016; Cho 2025, §2.2, eq. 19-24"
    Settings = VAEGANSettings
    inverts = True
    unaveraged = ("discriminator",)

    def __init__(
        self, settings: VAEGANSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        g, d, e = ({name: networks[name]} for name in ("generator", "discriminator", "encoder"))
        self.phases = [DiscriminatorPhase(d, g | e, settings), GeneratorPhase(g | e, d, settings)]

    @classmethod
    def build_networks(
        cls, settings: VAEGANSettings, network: NetworkSettings, spec: ModelSpec
    ) -> dict[str, nn.Module]:
        heads = Heads(adversarial=0, latent=spec.latent_dim, log_variance=spec.latent_dim)
        encoder = build_discriminator(network, spec.latent_dim, spec.shape, heads)
        return super().build_networks(settings, network, spec) | {"encoder": encoder}

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=1)

    @classmethod
    def validate(cls, settings: VAEGANSettings, law: str, stream_batch: int) -> None:
        even_stream_batch(stream_batch, "vaegan")
        if law != "normal":
            raise UserError(
                f"latent.law={law}: vaegan's L_prr pulls its encoder towards N(0, 1): set latent.law=normal"
            )

    def encode(self, sample: Tensor) -> Tensor:
        return predicted(self.networks["encoder"](sample))
