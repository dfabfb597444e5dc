"""InvGAN: D infers the code w that G was fed, and codes of reals are fed to G as well (Ghosh et al. 2022, §3).

w = M(z), x = G(w), w̃ = D_w(x), w_R = D_w(x_real). Eq. 3 of the paper reads min over G, M of [max over D of L_GAN + min
over D of all other terms]: so M is trained with G, in the generator phase, and every other term is in both phases,
minimised by the phase's own networks. The paper gives no weights; all are 1, ours.

- naive: adv + avg((w − w̃)²), fakes from w alone (§3.2; eq. 5 and §4.4 have G and M minimise it too).
- augmented: half of every fake batch comes from w_R, detached; the latent term is over both halves.
- full: in D's phase w_R keeps its gradient through the frozen G, and both phases add L_fm = avg((F(x) − F(G(w_R)))²),
  F(x) detached and F's parameters frozen (else D would shrink its features), the second cycle avg((w̃ − D_w(G(w̃)))²),
  and MMD² between w and w_R, which reaches M in one phase and D in the other.

Ours, where the paper is silent: G(w_R) is detached in D's adversarial loss in all variants (gradients through G serve
to reproduce an image, not to make the fakes easy to detect); D's fakes use the second half of each stream's reals and
G's the first, whose w_R and F(x) are kept from D's phase as in PVDGAN; d_w = d_z; MMD² is within each stream; M has
StyleGAN's gain √2, so that w starts with about the spread of z, and its learning rate × .01: all terms but adv are
smallest where w is constant, and at the full rate M converged to that.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentscale.errors import UserError
from latentscale.latents.priors import Prior
from latentscale.losses.distances import squared_mmd
from latentscale.losses.inversion import feature_mse, latent_mse
from latentscale.losses.reach import through_frozen
from latentscale.methods.base import Method, MethodSettings, even_stream_batch
from latentscale.methods.passes import (
    adversarial_terms,
    compared_reals,
    discriminate,
    first_half,
    generator_loss,
    scores,
    second_half,
)
from latentscale.methods.phase import Batch, Phase, Terms, Weighted, weighted_terms
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.factory import NetworkSettings
from latentscale.networks.mapping import MappingNetwork
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting
from latentscale.wording import counted

Pair = tuple[Tensor, Tensor]


@dataclass
class InvGANSettings(MethodSettings):
    variant: str = setting(
        "full", "how much of Ghosh et al. 2022, §3.2, is used", choices=("naive", "augmented", "full")
    )
    latent_weight: float = setting(1.0, "weight of avg((w − w̃)²)", above=0)
    feature_weight: float = setting(1.0, "full: weight of L_fm", minimum=0)
    cycle_weight: float = setting(1.0, "full: weight of the second cycle", minimum=0)
    mmd_weight: float = setting(1.0, "full: weight of MMD² between w and w_R", minimum=0)
    mapping_layers: int = setting(
        2, "dense layers of M; Ghosh et al. 2022: 8 with StyleGAN, else 2", minimum=1, maximum=100
    )
    mapping_rate: float = setting(0.01, "multiplier of M's learning rate; at 1 w shrinks towards a constant", above=0)


def full_terms(settings: InvGANSettings, features: Pair, cycle: Pair, codes: Pair, batch: Batch) -> Weighted:
    """What the full variant adds in both phases: L_fm, second cycle and MMD², each of a pair of tensors."""
    return {
        "feature": (settings.feature_weight, feature_mse(*features)),
        "cycle": (settings.cycle_weight, latent_mse(*cycle)),
        "mmd": (settings.mmd_weight, squared_mmd(*codes, batch.streams)),
    }


class DiscriminatorPhase(Phase):
    """L_d = adv + λ_r R + avg((w − w̃)²) [+ L_fm + cycle + MMD²], G and M frozen."""

    name = "discriminator"
    settings: InvGANSettings
    discriminator: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, z = self.settings, batch.draws["discriminator_latent"]
        generator, mapping = self.borrowed("generator"), self.borrowed("mapping")
        naive, full = settings.variant == "naive", settings.variant == "full"
        real = discriminate(self.discriminator, batch.real, batch, settings.r1)
        with torch.no_grad():
            codes = w = mapping(z if naive else first_half(z))
            images = generator(w)
        if not naive:
            w_r = second_half(real.latent) if full else second_half(real.latent).detach()
            rebuilt = generator(w_r)
            codes, images = torch.cat([w, w_r]), torch.cat([images, rebuilt.detach()])
        fake = discriminate(self.discriminator, images, batch, settings.r2)
        terms, inferred = adversarial_terms(settings, real, fake), fake.latent
        if full:
            # the same values as in the pass above, with the gradient through w_R
            inferred = torch.cat([first_half(inferred), discriminate(self.discriminator, rebuilt, batch).latent])
            again = discriminate(self.discriminator, generator(inferred), batch).latent
            frozen = through_frozen(self.discriminator, rebuilt)
            features = second_half(real.features).detach(), frozen.features
            terms |= full_terms(settings, features, (inferred, again), (w, w_r), batch)
        terms["latent"] = (settings.latent_weight, latent_mse(codes, inferred))
        kept = {} if naive else {"latent": first_half(real.latent), "features": first_half(real.features)}
        return weighted_terms(terms, kept=kept, measured=scores(real, fake))


class GeneratorPhase(Phase):
    """L_g = adv + avg((w − w̃)²) [+ L_fm + cycle + MMD²] for G and M, w_R a constant."""

    name = "generator"
    settings: InvGANSettings
    generator: nn.Module
    mapping: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, z, discriminator = self.settings, batch.draws["generator_latent"], self.borrowed("discriminator")
        if settings.variant == "naive":
            codes = w = self.mapping(z)
        else:
            w = self.mapping(second_half(z))
            codes = torch.cat([batch.kept["latent"], w])
        real = compared_reals(settings, discriminator, batch)
        fake = discriminate(discriminator, self.generator(codes), batch)
        terms: Weighted = {
            "adversarial": (1.0, generator_loss(settings, real, fake)),
            "latent": (settings.latent_weight, latent_mse(codes, fake.latent)),
        }
        if settings.variant == "full":
            again = discriminate(discriminator, self.generator(fake.latent), batch).latent
            features = batch.kept["features"], first_half(fake.features)
            terms |= full_terms(settings, features, (fake.latent, again), (w, batch.kept["latent"]), batch)
        return weighted_terms(terms)


class InvGAN(Method):
    """Invertible GAN with a mapping network, in the three variants of Ghosh et al. 2022, §4.4."""

    name = "invgan"
    paper = "Ghosh et al. 2022, §3"
    Settings = InvGANSettings
    inverts = True

    def __init__(
        self, settings: InvGANSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        g, d, m = ({name: networks[name]} for name in ("generator", "discriminator", "mapping"))
        self.phases = [DiscriminatorPhase(d, g | m, settings), GeneratorPhase(g | m, d, settings)]

    @classmethod
    def build_networks(
        cls, settings: InvGANSettings, network: NetworkSettings, spec: ModelSpec
    ) -> dict[str, nn.Module]:
        if network.family == "style" and network.mapping_layers:
            raise UserError(
                f"network.mapping_layers={network.mapping_layers}: invgan brings its own mapping network"
                " (method.mapping_layers): set network.mapping_layers=0"
            )
        width = spec.latent_dim
        mapping = MappingNetwork(width, width, settings.mapping_layers, settings.mapping_rate, gain=math.sqrt(2.0))
        return super().build_networks(settings, network, spec) | {"mapping": mapping}

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=1, latent=spec.latent_dim)

    @classmethod
    def validate(cls, settings: InvGANSettings, law: str, stream_batch: int) -> None:
        if settings.variant != "naive":
            even_stream_batch(stream_batch, f"method.variant={settings.variant}")
        if settings.variant == "full" and settings.mmd_weight and stream_batch < 4:
            raise UserError(
                f"method.mmd_weight compares the halves of each stream's batch, and a stream has"
                f" {counted(stream_batch, 'sample')}: choose distributed.streams so that training.batch /"
                " distributed.streams is 4 or more, better 8"
            )

    def map_latent(self, latent: Tensor) -> Tensor:
        codes: Tensor = self.networks["mapping"](latent)
        return codes
