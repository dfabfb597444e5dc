"""The post-hoc encoder: an encoder for a finished, frozen generator (T §4.2.1 "baseline").

L = avg((z − E(G(z)))²), z fresh, G with the averaged weights of another run; only E moves, and s = 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentscale.latents.draws import Purpose
from latentscale.latents.priors import Prior
from latentscale.losses.inversion import latent_mse
from latentscale.methods.base import Batch, Draw, Method, MethodSettings, Phase, Terms
from latentscale.methods.encoders import predicted
from latentscale.networks.build import NetworkSettings, build_discriminator, build_generator
from latentscale.networks.outputs import Heads
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting


@dataclass
class PosthocEncoderSettings(MethodSettings):
    generator_run: str = setting("", "folder of the finished run whose averaged generator is inverted")


class EncoderPhase(Phase):
    """E's step: L = avg((z − E(G(z)))²), fakes without a graph."""

    name = "encoder"
    encoder: nn.Module

    def __init__(self, generator: nn.Module, encoder: nn.Module) -> None:
        super().__init__(owned={"encoder": encoder}, borrowed={"generator": generator})

    def forward(self, batch: Batch) -> Terms:
        latent = batch.draws["generator_latent"]
        with torch.no_grad():
            images = self.borrowed("generator")(latent)
        loss = latent_mse(latent, predicted(self.encoder(images)))
        return Terms(loss, {}, {}, {"encoder": loss.detach()})


class PosthocEncoder(Method):
    """Encoder with D's architecture after the fact; ``method.adversarial``, ``r1`` and ``r2`` mean nothing to it."""

    name = "posthoc_encoder"
    paper = "T §4.2.1 (baseline)"
    Settings = PosthocEncoderSettings
    inverts = True
    frozen_generator = True

    def __init__(
        self, settings: PosthocEncoderSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        self.phases = [EncoderPhase(self.networks["generator"], self.networks["encoder"])]

    @classmethod
    def build_networks(
        cls, settings: PosthocEncoderSettings, network: NetworkSettings, spec: ModelSpec
    ) -> dict[str, nn.Module]:
        return {
            "generator": build_generator(network, spec.latent_dim, spec.shape),
            "encoder": build_discriminator(network, spec.latent_dim, spec.shape, cls.heads(spec)),
        }

    @classmethod
    def heads(cls, spec: ModelSpec) -> Heads:
        return Heads(adversarial=0, latent=spec.latent_dim)

    def draws(self) -> dict[str, Draw]:
        return {"generator_latent": Draw(Purpose.GENERATOR_LATENT, self.spec.latent_dim)}

    def encode(self, sample: Tensor) -> Tensor:
        return predicted(self.networks["encoder"](sample))
