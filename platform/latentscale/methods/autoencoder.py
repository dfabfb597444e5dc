"""The autoencoder: pixel MSE, D's trunk as its encoder and the generator as its decoder (Cho 2025, §4.3).

L = avg((x − G(E(x)))²) trains both; no latent is drawn and there is no adversary.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from latentscale.latents.priors import Prior
from latentscale.latents.scale import at_least_float32
from latentscale.methods.base import Draw, MethodSettings
from latentscale.methods.encoders import SeparateEncoderMethod
from latentscale.methods.passes import predicted
from latentscale.methods.phase import Batch, Phase, Terms, weighted_terms
from latentscale.networks.spec import ModelSpec


class AutoencoderPhase(Phase):
    """Both networks' step: L = avg((x − G(E(x)))²) over pixels."""

    name = "autoencoder"
    generator: nn.Module
    encoder: nn.Module

    def forward(self, batch: Batch) -> Terms:
        rebuilt: Tensor = self.generator(predicted(self.encoder(batch.real)))
        loss = F.mse_loss(at_least_float32(rebuilt), at_least_float32(batch.real))
        return weighted_terms({"reconstruction": (1.0, loss)})


class Autoencoder(SeparateEncoderMethod):
    """Pixel autoencoder, which ignores ``method.adversarial``, ``r1`` and ``r2``."""

    name = "autoencoder"
    paper = "Cho 2025, §4.3 (baseline)"
    generates = False

    def __init__(
        self, settings: MethodSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        self.phases = [AutoencoderPhase(owned=networks, borrowed={})]

    def draws(self) -> dict[str, Draw]:
        return {}
