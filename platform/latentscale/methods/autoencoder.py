"""The autoencoder: pixel MSE, D's trunk as its encoder and the generator as its decoder (T §4.3, METHODS' OOD rivals).

L = avg((x − G(E(x)))²) trains both; no latent is drawn and there is no adversary.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from latentscale.latents.priors import Prior
from latentscale.latents.scale import at_least_float32
from latentscale.methods.base import Draw, MethodSettings
from latentscale.methods.encoders import SeparateEncoderMethod, predicted
from latentscale.methods.phase import Batch, Phase, Terms
from latentscale.networks.spec import ModelSpec


class AutoencoderPhase(Phase):
    """Both networks' step: L = avg((x − G(E(x)))²) over pixels."""

    name = "autoencoder"
    generator: nn.Module
    encoder: nn.Module

    def __init__(self, generator: nn.Module, encoder: nn.Module) -> None:
        super().__init__(owned={"generator": generator, "encoder": encoder}, borrowed={})

    def forward(self, batch: Batch) -> Terms:
        rebuilt: Tensor = self.generator(predicted(self.encoder(batch.real)))
        loss = F.mse_loss(at_least_float32(rebuilt), at_least_float32(batch.real))
        return Terms(loss, {}, {}, {"reconstruction": loss.detach()})


class Autoencoder(SeparateEncoderMethod):
    """Pixel autoencoder; the keys ``method.adversarial``, ``r1`` and ``r2`` mean nothing to it."""

    name = "autoencoder"
    paper = "T §4.3 (rival)"
    generates = False

    def __init__(
        self, settings: MethodSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        self.phases = [AutoencoderPhase(self.networks["generator"], self.networks["encoder"])]

    def draws(self) -> dict[str, Draw]:
        return {}
