"""The vanilla GAN, and the adversarial phases that every encoder method extends.

T eq. 49-51: the discriminator minimises softplus(−a_r) + softplus(a_f) + λ R1 (or another loss of the table),
the generator softplus(−a_f).
"""

import torch
from torch import Tensor, nn

from latentscale.latents.priors import Prior
from latentscale.losses.adversarial import ADVERSARIAL
from latentscale.methods.base import (
    Batch,
    Method,
    MethodSettings,
    Phase,
    Terms,
    adversarial_value,
    discriminate,
    total,
)
from latentscale.networks.outputs import Discrimination, Heads


class DiscriminatorPhase(Phase):
    """D's step: fakes without a graph through G, one loss."""

    name = "discriminator"
    discriminator: nn.Module

    def __init__(self, settings: MethodSettings, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__(owned={"discriminator": discriminator}, borrowed={"generator": generator})
        self.settings = settings
        self.loss = ADVERSARIAL[settings.adversarial]

    def forward(self, batch: Batch) -> Terms:
        latent = batch.draws["discriminator_latent"]
        with torch.no_grad():
            fake_images = self.borrowed("generator")(self.scaled(latent, batch))
        settings = self.settings
        real, real_gradient = discriminate(self.discriminator, batch.real, settings.r1, batch.penalise)
        fake, fake_gradient = discriminate(self.discriminator, fake_images, settings.r2, batch.penalise)

        a_r, a_f = adversarial_value(real), adversarial_value(fake)
        terms = {"adversarial": (1.0, self.loss.discriminator(a_r, a_f).mean())}
        if real_gradient is not None:
            terms["r1"] = (settings.r1 * settings.penalty_interval_steps, real_gradient.mean())
        if fake_gradient is not None:
            terms["r2"] = (settings.r2 * settings.penalty_interval_steps, fake_gradient.mean())
        terms |= self.encoder_terms(latent, fake, batch)
        measured = {name: value.detach() for name, (_, value) in terms.items()}
        measured |= {"real_score": a_r.detach().mean(), "fake_score": a_f.detach().mean()}
        return Terms(total(terms), self.kept(real, batch), self.observed(fake), measured)

    def scaled(self, latent: Tensor, batch: Batch) -> Tensor:
        """What enters G: z∘s where the method has a scale."""
        return latent * batch.state["scale"] if "scale" in batch.state else latent

    def encoder_terms(self, latent: Tensor, fake: Discrimination, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        """The method's encoder loss on this phase's fakes, with its weight."""
        return {}

    def kept(self, real: Discrimination, batch: Batch) -> dict[str, Tensor]:
        """What the generator phase needs of the reals."""
        return {}

    def observed(self, fake: Discrimination) -> dict[str, Tensor]:
        """What the statistics need."""
        return {}


class GeneratorPhase(Phase):
    """G's step: fresh latents, fakes through the updated D with its weights frozen."""

    name = "generator"
    generator: nn.Module

    def __init__(self, settings: MethodSettings, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__(owned={"generator": generator}, borrowed={"discriminator": discriminator})
        self.settings = settings
        self.loss = ADVERSARIAL[settings.adversarial]

    def forward(self, batch: Batch) -> Terms:
        latent = self.latent(batch)
        scaled = latent * batch.state["scale"] if "scale" in batch.state else latent
        fake: Discrimination = self.borrowed("discriminator")(self.generator(scaled))
        terms = {"adversarial": (1.0, self.loss.generator(adversarial_value(fake)).mean())}
        terms |= self.encoder_terms(latent, fake, batch)
        measured = {name: value.detach() for name, (_, value) in terms.items()}
        return Terms(total(terms), {}, self.observed(fake, batch), measured)

    def latent(self, batch: Batch) -> Tensor:
        """The unscaled latents of this phase's fakes."""
        return batch.draws["generator_latent"]

    def encoder_terms(self, latent: Tensor, fake: Discrimination, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        """The method's encoder and reconstruction losses, with their weights."""
        return {}

    def observed(self, fake: Discrimination, batch: Batch) -> dict[str, Tensor]:
        """What the statistics need."""
        return {}


class Vanilla(Method):
    """The GAN without an encoder: adversarial loss and penalties alone."""

    name = "vanilla"
    paper = "Goodfellow et al. 2014; T eq. 49-51"

    def __init__(
        self,
        settings: MethodSettings,
        generator: nn.Module,
        discriminator: nn.Module,
        prior: Prior,
        latent_dim: int,
    ) -> None:
        super().__init__(settings, generator, discriminator, prior, latent_dim)
        self.phases = [
            DiscriminatorPhase(settings, generator, discriminator),
            GeneratorPhase(settings, generator, discriminator),
        ]

    @classmethod
    def heads(cls, latent_dim: int) -> Heads:
        return Heads(adversarial=1)
