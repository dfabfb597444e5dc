"""PVDGAN written by hand in plain PyTorch, to compare the platform's step with.

The networks are the platform's modules; everything around them is here: the losses (Cho 2025, eq. 38-41), R1 by
``torch.autograd.grad(create_graph=True)``, fused Adam, the running variance and the average of the weights. It has
no streams, no second process, no reports, no skipping of non-finite steps and no checkpoints.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class BareSettings:
    """The algorithm's settings, by the configuration's names."""

    latent_dim: int
    r1: float
    learning_rate: float
    beta1: float = 0.0
    beta2: float = 0.99
    encoder_weight: float = 1.0
    reconstruction_weight: float = 1.0
    variance_start: float = 1e-4
    variance_decay: float = 0.999
    ema_decay: float = 0.999


class BareLoop:
    """One process and one device, with only the mathematics.

    Args:
        generator: ``[b, d_z]`` latents to images.
        discriminator: images to an object with ``adversarial [b, 1]``, ``latent [b, d_z]``, ``features [b, F]``.
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module, settings: BareSettings) -> None:
        self.generator, self.discriminator, self.settings = generator, discriminator, settings
        betas = (settings.beta1, settings.beta2)
        self.generator_optimizer = torch.optim.Adam(
            generator.parameters(), settings.learning_rate, betas=betas, fused=True
        )
        self.discriminator_optimizer = torch.optim.Adam(
            discriminator.parameters(), settings.learning_rate, betas=betas, fused=True
        )
        self.average_generator = copy.deepcopy(generator).requires_grad_(False)
        self.average_discriminator = copy.deepcopy(discriminator).requires_grad_(False)
        self.trained: list[Tensor] = [*generator.parameters(), *discriminator.parameters()]
        self.averages: list[Tensor] = [*self.average_generator.parameters(), *self.average_discriminator.parameters()]
        self.variance = torch.full((settings.latent_dim,), settings.variance_start).to(self.trained[0])

    def step(self, real: Tensor, latent: Tensor, drawn: Tensor) -> dict[str, Tensor]:
        """One training step.

        Args:
            real: ``[b, …]``, b even.
            latent: ``[b, d_z]`` N(0, 1) of the discriminator's fakes.
            drawn: ``[b, d_z]`` N(0, 1): ε of the first half of the generator's fakes, z of the second.

        Returns:
            Each loss term, 0-dim, without a graph.
        """
        settings, half = self.settings, len(real) // 2
        scale = (settings.latent_dim * self.variance / self.variance.sum()).sqrt()

        # discriminator
        self.generator.requires_grad_(False)
        self.discriminator.requires_grad_(True)
        self.discriminator_optimizer.zero_grad()
        with torch.no_grad():
            fake_images = self.generator(latent * scale)
        x = real.detach().requires_grad_(True)
        on_real, on_fake = self.discriminator(x), self.discriminator(fake_images)
        (slope,) = torch.autograd.grad(on_real.adversarial.sum(), x, create_graph=True)
        adversarial = (F.softplus(-on_real.adversarial) + F.softplus(on_fake.adversarial)).mean()
        r1 = slope.square().sum() / len(real)
        encoder = ((latent - on_fake.latent) * scale).square().mean()
        loss = adversarial + settings.r1 * r1 + settings.encoder_weight * encoder
        loss.backward()
        self.discriminator_optimizer.step()
        losses = {
            "discriminator/adversarial": adversarial.detach(),
            "discriminator/r1": r1.detach(),
            "discriminator/encoder": encoder.detach(),
        }
        observed = on_fake.latent.detach()

        # generator
        self.generator.requires_grad_(True)
        self.discriminator.requires_grad_(False)
        self.generator_optimizer.zero_grad()
        noise, fresh = drawn[:half], drawn[half:]
        posterior = on_real.latent[:half].detach() + noise * (1 - self.variance).clamp(min=0).sqrt()
        on_fake = self.discriminator(self.generator(torch.cat([posterior, fresh]) * scale))
        adversarial = F.softplus(-on_fake.adversarial).mean()
        encoder = ((fresh - on_fake.latent[half:]) * scale).square().mean()
        reconstruction = F.mse_loss(on_fake.features[:half], on_real.features[:half].detach())
        loss = adversarial + settings.encoder_weight * encoder + settings.reconstruction_weight * reconstruction
        loss.backward()
        self.generator_optimizer.step()
        losses |= {
            "generator/adversarial": adversarial.detach(),
            "generator/encoder": encoder.detach(),
            "generator/reconstruction": reconstruction.detach(),
        }

        # running variance and averaged weights
        with torch.no_grad():
            seen = torch.cat([observed, on_fake.latent[half:].detach()]).to(self.variance)  # autocast's are bf16
            self.variance.lerp_(seen.square().mean(0), 1 - settings.variance_decay)
            torch._foreach_lerp_(self.averages, self.trained, 1 - settings.ema_decay)
        return losses


def train_on(loop: BareLoop, images: Tensor, batch: int, should_stop: Callable[[], bool]) -> None:
    """Step on random batches of images in memory until asked to stop.

    Args:
        images: ``[n, C, H, W]``, decoded, in [-1, 1].
        should_stop: asked once a step.
    """
    stopping = False
    while not stopping:
        real = images[torch.randint(len(images), (batch,))]
        latent = torch.randn(batch, loop.settings.latent_dim)
        drawn = torch.randn(batch, loop.settings.latent_dim)
        loop.step(real, latent, drawn)
        stopping = should_stop()
