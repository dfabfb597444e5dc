"""AEDLSGAN, attribute edit DLSGAN: a DLSGAN whose attributes are linear in its latent.

Cho 2025, §3.2.1, eq. 36, alg. 3. The fakes' category is c_f = onehot(sign or argmax of (z∘s)w) with a w ~ N(0, 1) that
never changes; G's input is z∘s alone. With these categories and the reals' labels the adversarial loss is CAGAN's;
L_enc and s are DLSGAN's. An image is then edited along an attribute by moving its scaled latent along that column of w.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from latentscale.latents.attributes import FixedClassifier, attribute_categories
from latentscale.latents.priors import Prior
from latentscale.losses.inversion import scaled_latent_mse
from latentscale.methods.categorical import label_category, label_value
from latentscale.methods.dlsgan import DLSGANSettings
from latentscale.methods.encoders import EncoderMethod
from latentscale.methods.passes import (
    adversarial_terms,
    category_value,
    compared_reals,
    discriminate,
    generator_loss,
    scores,
)
from latentscale.methods.phase import Batch, Phase, Terms, weighted_terms
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.spec import ModelSpec


class DiscriminatorPhase(Phase):
    """L_d = A_d(a_r·c_r, a_f·c_f) + λ_enc L_enc + λ_r R."""

    name = "discriminator"
    settings: DLSGANSettings
    discriminator: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, z, s = self.settings, batch.draws["discriminator_latent"], batch.state["scale"]
        c_r = label_category(batch, self.sizes)
        c_f = latent_category(z * s, batch, self.sizes)
        with torch.no_grad():
            images = self.borrowed("generator")(z * s)
        real = discriminate(self.discriminator, batch.real, batch, settings.r1, category_value(c_r, self.sizes))
        fake = discriminate(self.discriminator, images, batch, settings.r2, category_value(c_f, self.sizes))
        return weighted_terms(
            {
                **adversarial_terms(settings, real, fake),
                "encoder": (settings.encoder_weight, scaled_latent_mse(z, fake.latent, s)),
            },
            observed={"variance": fake.latent},
            measured=scores(real, fake),
        )


class GeneratorPhase(Phase):
    """L_g = A_g(a_f·c_f) + λ_enc L_enc, or without L_enc."""

    name = "generator"
    settings: DLSGANSettings
    generator: nn.Module

    def forward(self, batch: Batch) -> Terms:
        settings, z, s = self.settings, batch.draws["generator_latent"], batch.state["scale"]
        discriminator = self.borrowed("discriminator")
        c_f = latent_category(z * s, batch, self.sizes)
        real = compared_reals(settings, discriminator, batch, label_value(batch, self.sizes))
        fake = discriminate(discriminator, self.generator(z * s), batch, value=category_value(c_f, self.sizes))
        encoder_weight = settings.encoder_weight if settings.encoder_in_generator else 0.0
        return weighted_terms(
            {
                "adversarial": (1.0, generator_loss(settings, real, fake)),
                "encoder": (encoder_weight, scaled_latent_mse(z, fake.latent, s)),
            },
            observed={"variance": fake.latent},
        )


def latent_category(scaled: Tensor, batch: Batch, sizes: tuple[int, ...]) -> Tensor:
    """The categories c_f ``[b, Σ d_c]`` of scaled latents z∘s ``[b, d_z]``."""
    return attribute_categories(scaled, batch.state["attributes"], sizes).to(batch.real.dtype)


class AEDLSGAN(EncoderMethod):
    """Attribute edit dynamic latent scale GAN."""

    name = "aedlsgan"
    paper = "Cho 2025, §3.2.1, eq. 36, alg. 3"
    Settings = DLSGANSettings
    dynamic_scale = True
    labelled = True

    def __init__(
        self, settings: DLSGANSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        self.statistics["attributes"] = FixedClassifier(spec.latent_dim, spec.categories)
        g, d = {"generator": networks["generator"]}, {"discriminator": networks["discriminator"]}
        sizes = spec.categories
        self.phases = [DiscriminatorPhase(d, g, settings, sizes), GeneratorPhase(g, d, settings, sizes)]

    @property
    def attributes(self) -> FixedClassifier:
        """w."""
        return cast(FixedClassifier, self.statistics["attributes"])

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=spec.category_dim, latent=spec.latent_dim)

    def state(self) -> dict[str, Tensor]:
        return {"scale": self.latent_scale.scale(), "attributes": self.attributes.weight}
