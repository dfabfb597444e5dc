"""AEDLSGAN, attribute edit DLSGAN: a DLSGAN whose attributes are linear in its latent (T §3.2.1, eq. 36, alg. 3).

The fakes' category is c_f = onehot(sign or argmax of (z∘s)w) with a w ~ N(0, 1) that is fixed for ever; G's input is
z∘s alone. With these categories and the reals' labels the adversarial loss is CAGAN's; L_enc and s are DLSGAN's. An
image is then edited along an attribute by moving its scaled latent along that column of w.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from latentscale.latents.attributes import FixedClassifier, attribute_categories
from latentscale.latents.priors import Prior
from latentscale.methods import conditional, dlsgan
from latentscale.methods.phase import Batch
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.spec import ModelSpec


class LatentCategory(conditional.Conditional):
    """Both phases' fakes: their latent alone makes them, and says their category."""

    name: ClassVar[str]

    def fake_category(self, draw: str, batch: Batch) -> Tensor | None:
        scaled = batch.draws[f"{self.name}_latent"] * batch.state["scale"]
        return attribute_categories(scaled, batch.state["attributes"], self.sizes).to(batch.real.dtype)

    def fakes(self, generator: nn.Module, latent: Tensor, category: Tensor | None, batch: Batch) -> Tensor:
        return super().fakes(generator, latent, None, batch)


class DiscriminatorPhase(LatentCategory, conditional.DiscriminatorPhase, dlsgan.DiscriminatorPhase):
    """L_d = A_d(a_r·c_r, a_f·c_f) + λ_enc L_enc + λ_r R."""


class GeneratorPhase(LatentCategory, conditional.GeneratorPhase, dlsgan.GeneratorPhase):
    """L_g = A_g(a_f·c_f) + λ_enc L_enc."""


class AEDLSGAN(dlsgan.DLSGAN):
    """Attribute edit dynamic latent scale GAN."""

    name = "aedlsgan"
    paper = "T §3.2.1, eq. 36, alg. 3"
    labelled = True
    discriminator_phase = DiscriminatorPhase
    generator_phase = GeneratorPhase

    def __init__(
        self, settings: dlsgan.DLSGANSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        self.attributes = FixedClassifier(spec.latent_dim, spec.categories)
        self.statistics["attributes"] = self.attributes

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=spec.category_dim, latent=spec.latent_dim)

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "attributes": self.attributes.weight}
