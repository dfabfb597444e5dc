"""The adversarial phases that every method with a discriminator extends.

T eq. 49-51: the discriminator minimises softplus(−a_r) + softplus(a_f) + λ R1 (or another loss of the table),
the generator softplus(−a_f).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from latentscale.losses.adversarial import ADVERSARIAL
from latentscale.methods.adversary import Adversary, Seen, Side, discriminate, in_streams
from latentscale.methods.base import MethodSettings
from latentscale.methods.phase import Batch, Phase, Terms, total
from latentscale.networks.discriminator_output import DiscriminatorOutput


class DiscriminatorPhase(Adversary, Phase):
    """D's step: fakes without a graph through G, one loss."""

    name = "discriminator"
    discriminator: nn.Module

    def __init__(
        self, settings: MethodSettings, generator: nn.Module, discriminator: nn.Module, sizes: tuple[int, ...] = ()
    ) -> None:
        super().__init__(owned={"discriminator": discriminator}, borrowed={"generator": generator})
        self.settings = settings
        self.sizes = sizes
        self.loss = ADVERSARIAL[settings.adversarial]

    def forward(self, batch: Batch) -> Terms:
        latent = batch.draws["discriminator_latent"]
        c_r, c_f = self.real_category(batch), self.fake_category("discriminator_category", batch)
        with torch.no_grad():
            fake_images = self.fakes(self.borrowed("generator"), latent, c_f, batch)
        (real, real_gradient), (fake, fake_gradient) = self.discriminate(fake_images, c_r, c_f, batch)

        a_r, a_f = self.values(real, c_r), self.values(fake, c_f)
        terms = self.adversarial_terms(a_r, a_f, real_gradient, fake_gradient)
        terms |= self.encoder_terms(latent, fake, batch)
        terms |= self.category_terms(Side(batch.real, real, c_r), Side(fake_images, fake, c_f), batch)
        measured = {name: value.detach() for name, (_, value) in terms.items()}
        measured |= {"real_score": a_r.detach().mean(), "fake_score": a_f.detach().mean()}
        return Terms(total(terms), self.kept(real, batch), self.observed(fake, batch), measured)

    def adversarial_terms(
        self, a_r: Tensor, a_f: Tensor, real_gradient: Tensor | None, fake_gradient: Tensor | None
    ) -> dict[str, tuple[float, Tensor]]:
        """adv, and the penalties of the squared gradients that were taken, with their weights."""
        settings = self.settings
        terms = {"adversarial": (1.0, self.loss.discriminator(a_r, a_f).mean())}
        if real_gradient is not None:
            terms["r1"] = (settings.r1 * settings.penalty_interval_steps, real_gradient.mean())
        if fake_gradient is not None:
            terms["r2"] = (settings.r2 * settings.penalty_interval_steps, fake_gradient.mean())
        return terms

    def discriminate(
        self, fake_images: Tensor, c_r: Tensor | None, c_f: Tensor | None, batch: Batch
    ) -> tuple[Seen, Seen]:
        """D on the reals and on the fakes, each with its penalty's squared gradients."""
        settings, discriminator = self.settings, in_streams(self.discriminator, batch)
        return (
            discriminate(discriminator, batch.real, settings.r1, batch.penalise, self.penalised(c_r)),
            discriminate(discriminator, fake_images, settings.r2, batch.penalise, self.penalised(c_f)),
        )

    def penalised(self, category: Tensor | None) -> Callable[[DiscriminatorOutput], Tensor]:
        """``[b]`` the value whose input gradient is penalised: `values`, averaged over labels."""
        return lambda output: self.values(output, category)

    def real_category(self, batch: Batch) -> Tensor | None:
        """``[b, Σ d_c]`` categories of the reals, None without categories."""
        return None

    def encoder_terms(self, latent: Tensor, fake: DiscriminatorOutput, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        """The method's encoder loss on this phase's fakes, with its weight."""
        return {}

    def category_terms(self, real: Side, fake: Side, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        """The method's classification losses, with their weights."""
        return {}

    def kept(self, real: DiscriminatorOutput, batch: Batch) -> dict[str, Tensor]:
        """What the generator phase needs of the reals."""
        return {}

    def observed(self, fake: DiscriminatorOutput, batch: Batch) -> dict[str, Tensor]:
        """What the statistics need."""
        return {}


class GeneratorPhase(Adversary, Phase):
    """G's step: fresh latents, fakes through the updated D with its weights frozen."""

    name = "generator"
    generator: nn.Module

    def __init__(
        self, settings: MethodSettings, generator: nn.Module, discriminator: nn.Module, sizes: tuple[int, ...] = ()
    ) -> None:
        super().__init__(owned={"generator": generator}, borrowed={"discriminator": discriminator})
        self.settings = settings
        self.sizes = sizes
        self.loss = ADVERSARIAL[settings.adversarial]

    def forward(self, batch: Batch) -> Terms:
        latent, c_f = self.latent(batch), self.fake_category("generator_category", batch)
        images = self.fakes(self.generator, latent, c_f, batch)
        fake = self.discriminate(images, batch)
        terms = {"adversarial": (1.0, self.loss.generator(self.values(fake, c_f)).mean())}
        terms |= self.encoder_terms(latent, fake, batch)
        terms |= self.category_terms(Side(images, fake, c_f), batch)
        measured = {name: value.detach() for name, (_, value) in terms.items()}
        return Terms(total(terms), {}, self.observed(fake, batch), measured)

    def discriminate(self, images: Tensor, batch: Batch) -> DiscriminatorOutput:
        """The frozen D on this phase's fakes."""
        return in_streams(self.borrowed("discriminator"), batch)(images)

    def latent(self, batch: Batch) -> Tensor:
        """The unscaled latents of this phase's fakes."""
        return batch.draws["generator_latent"]

    def encoder_terms(self, latent: Tensor, fake: DiscriminatorOutput, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        """The method's encoder and reconstruction losses, with their weights."""
        return {}

    def category_terms(self, fake: Side, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        """The method's classification losses, with their weights."""
        return {}

    def observed(self, fake: DiscriminatorOutput, batch: Batch) -> dict[str, Tensor]:
        """What the statistics need."""
        return {}
