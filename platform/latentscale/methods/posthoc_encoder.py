"""The post-hoc encoder: an encoder for a finished, frozen generator (Cho 2025, §4.2.1, "baseline").

L = avg((z − E(G(z)))²), z drawn anew, G with the averaged weights of another run; only E is trained, and s = 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from latentscale.latents.draws import Purpose
from latentscale.latents.priors import Prior
from latentscale.losses.inversion import latent_mse
from latentscale.methods.base import Draw, MethodSettings
from latentscale.methods.encoders import SeparateEncoderMethod
from latentscale.methods.passes import predicted
from latentscale.methods.phase import Batch, Phase, Terms, weighted_terms
from latentscale.networks.spec import ModelSpec
from latentscale.settings import setting


@dataclass
class PosthocEncoderSettings(MethodSettings):
    generator_run: str = setting(
        "",
        "folder of the finished run whose averaged generator is inverted; a continued run keeps the one it has",
        may_change=True,
        is_path=True,
    )


class EncoderPhase(Phase):
    """E's step: L = avg((z − E(G(z)))²), fakes without a graph."""

    name = "encoder"
    encoder: nn.Module

    def forward(self, batch: Batch) -> Terms:
        z = batch.draws["generator_latent"]
        with torch.no_grad():
            images = self.borrowed("generator")(z)
        return weighted_terms({"encoder": (1.0, latent_mse(z, predicted(self.encoder(images))))})


class PosthocEncoder(SeparateEncoderMethod):
    """Encoder of D's architecture for a finished generator, which ignores ``method.adversarial``, ``r1`` and ``r2``."""

    name = "posthoc_encoder"
    paper = "Cho 2025, §4.2.1 (baseline)"
    Settings = PosthocEncoderSettings
    frozen_generator = True

    def __init__(
        self, settings: PosthocEncoderSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        g, e = {"generator": networks["generator"]}, {"encoder": networks["encoder"]}
        self.phases = [EncoderPhase(owned=e, borrowed=g)]

    def draws(self) -> dict[str, Draw]:
        return {"generator_latent": Draw(Purpose.GENERATOR_LATENT, self.spec.latent_dim)}
