"""Networks from settings, for any data shape that the family can make."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from latentscale.errors import UserError
from latentscale.networks.biggan import BigGANDiscriminator, BigGANGenerator
from latentscale.networks.codebook import CGPGANDiscriminator, CGPGANGenerator, CodebookGenerator
from latentscale.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from latentscale.networks.mlp import MLPDiscriminator, MLPGenerator
from latentscale.networks.mnist import (
    MNIST28Discriminator,
    MNIST28Generator,
    MNIST32Discriminator,
    MNIST32Generator,
)
from latentscale.networks.outputs import Heads
from latentscale.networks.recovery import RecoveryDiscriminator, RecoveryGenerator
from latentscale.networks.residual import ResidualDiscriminator, ResidualGenerator
from latentscale.networks.skip import SkipDiscriminator, SkipGenerator
from latentscale.networks.style import StyleGenerator, StyleSynthesis
from latentscale.settings import setting

FAMILIES = (
    "residual",
    "skip",
    "mlp",
    "cgpgan",
    "codebook",
    "mnist32",
    "mnist28",
    "style",
    "recovery",
    "dcgan",
    "biggan",
)
FROM_SEVEN = ("mnist28", "recovery", "dcgan")
"""Families that also make images of 7·2ⁿ pixels a side, from 7 instead of 4."""
SMALLEST, LARGEST = 8, 1024


@dataclass
class NetworkSettings:
    """Which networks, and how wide. The defaults are the published 256² ones."""

    family: str = setting("residual", "architecture of both networks", choices=FAMILIES)
    widths: list[int] = setting(
        factory=lambda: [64, 128, 256, 512, 512, 512],
        help="one width per x2 step from the image's resolution down to 8-4, the last repeated as needed "
        "and the rest left out; mlp: one per hidden layer",
        unit="channels",
        minimum=1,
    )
    base_width: int = setting(512, "width at 4x4 or 7x7 (not mlp, dcgan)", unit="channels", minimum=1)
    hidden_width: int = setting(
        0,
        "width of the dense layers next to the latent and the heads; 0 is, for skip, 2 * latent.dim + 8, for cgpgan "
        "2 * latent.dim, for codebook (discriminator only) twice that of all heads",
        unit="features",
        minimum=0,
    )
    extra_width: int = setting(
        0,
        "mlp, mnist28: one more hidden layer of the discriminator, as wide; 0: none (T §4.1: 512)",
        unit="features",
        minimum=0,
    )
    minibatch_deviation: bool = setting(
        False,
        "mlp, mnist28: the discriminator's last hidden layer also takes the deviations over each stream's batch; "
        "mnist28 needs extra_width for it",
    )
    pages: bool = setting(
        True, "codebook: categories enter the generator as trainable pages; false: normalised beside the latent"
    )
    mapping_layers: int = setting(
        2, "style: dense layers of the generator's mapping network; 0 is none, where the method has its own", minimum=0
    )
    mapping_rate: float = setting(0.01, "style: multiplier of the mapping network's learning rate", above=0)


def build_generator(
    settings: NetworkSettings, latent_dim: int, shape: tuple[int, ...], category_dim: int = 0
) -> nn.Module:
    """A generator ``[b, latent_dim + category_dim]`` -> ``[b, *shape]``, its parameters zero until initialised.

    Args:
        settings: family and widths.
        latent_dim: d_z, which also sets the width of dense layers that go by it.
        shape: of one sample, (C, H, W) or (D,).
        category_dim: Σ d_c where categories are concatenated with the latent.

    Raises:
        UserError: naming the `network.*` key, if the family cannot make that shape.
    """
    family, fed, base = settings.family, latent_dim + category_dim, settings.base_width
    if family == "mlp":
        return MLPGenerator(fed, shape, _hidden_widths(settings))
    widths, channels, size = step_widths(settings, shape), shape[0], base_size(settings, shape)
    match family:
        case "skip":
            return SkipGenerator(fed, channels, widths, base, _hidden_width(settings, latent_dim))
        case "cgpgan":
            return CGPGANGenerator(fed, channels, widths, base, settings.hidden_width or 2 * latent_dim)
        case "codebook":
            return CGPGANGenerator(fed, channels, widths, base, hidden_width=0)
        case "mnist32":
            return MNIST32Generator(fed, channels, widths, base)
        case "mnist28":
            return MNIST28Generator(fed, channels, widths, base, size)
        case "style" if settings.mapping_layers:
            return StyleGenerator(fed, channels, widths, base, settings.mapping_rate, settings.mapping_layers)
        case "style":
            return StyleSynthesis(fed, channels, widths, base)
        case "recovery":
            return RecoveryGenerator(fed, channels, widths, base, size)
        case "dcgan":
            return DCGANGenerator(fed, channels, widths, size)
        case "biggan":
            return BigGANGenerator(fed, channels, widths, base)
        case _:
            return ResidualGenerator(fed, channels, widths, base)


def build_codebook_generator(
    settings: NetworkSettings, latent_dim: int, sizes: Sequence[int], shape: tuple[int, ...]
) -> nn.Module:
    """A generator of ``[b, d_z]`` latents and ``[b, Σ d_c]`` categories with a page for each category.

    Args:
        sizes: d_c of each label.

    Raises:
        UserError: naming the key, if the labels cannot share half of the 4² map's channels.
    """
    half, odd = divmod(settings.base_width, 2)
    if odd or half % len(sizes):
        raise UserError(
            f"latent.categories has {len(sizes)} labels, which must divide half of network.base_width="
            f"{settings.base_width} when network.pages=true: choose another number of labels, or network.pages=false"
        )
    return CodebookGenerator(latent_dim, sizes, shape[0], step_widths(settings, shape), settings.base_width)


def build_discriminator(settings: NetworkSettings, latent_dim: int, shape: tuple[int, ...], heads: Heads) -> nn.Module:
    """A discriminator/encoder ``[b, *shape]`` -> `Discrimination`, its parameters zero until initialised or loaded.

    Args:
        settings: family and widths.
        latent_dim: d_z, which sets the width of `skip`'s and `cgpgan`'s dense layer whatever the heads are.
        shape: of one sample, (C, H, W) or (D,).
        heads: those to build; one of width 0 does not exist.

    Raises:
        UserError: naming the `network.*` key, if the family cannot take that shape.
    """
    family, base = settings.family, settings.base_width
    _check_deviation(settings, heads)
    if family == "mlp":
        widths = [*_hidden_widths(settings), *([settings.extra_width] if settings.extra_width else [])]
        return MLPDiscriminator(shape, widths, heads, settings.minibatch_deviation)
    widths, channels, size = step_widths(settings, shape), shape[0], base_size(settings, shape)
    match family:
        case "skip":
            return SkipDiscriminator(channels, widths, base, _hidden_width(settings, latent_dim), heads)
        case "cgpgan":
            return CGPGANDiscriminator(channels, widths, base, settings.hidden_width or 2 * latent_dim, heads)
        case "codebook":
            outputs = heads.adversarial + heads.latent + heads.log_variance + heads.classes
            return CGPGANDiscriminator(channels, widths, base, settings.hidden_width or 2 * outputs, heads)
        case "mnist32":
            return MNIST32Discriminator(channels, widths, base, heads)
        case "mnist28":
            extra, deviation = settings.extra_width, settings.minibatch_deviation
            return MNIST28Discriminator(channels, widths, base, size, heads, extra, deviation)
        case "recovery":
            return RecoveryDiscriminator(channels, widths, base, size, heads)
        case "dcgan":
            return DCGANDiscriminator(channels, widths, size, heads)
        case "biggan":
            return BigGANDiscriminator(channels, widths, base, heads)
        case _:
            # style's own is published as a CNN with skips, no more
            return ResidualDiscriminator(channels, widths, base, heads)


def base_size(settings: NetworkSettings, shape: tuple[int, ...]) -> int:
    """Sides of the smallest map, 4 or 7, of an image of ``shape``."""
    return 7 if settings.family in FROM_SEVEN and shape[-1] % 7 == 0 else 4


def step_widths(settings: NetworkSettings, shape: tuple[int, ...]) -> list[int]:
    """The widths of the ×2 steps of an image of ``shape``, from its resolution downwards to 8↔4 (or 14↔7).

    Raises:
        UserError: if the shape is no square image of a side that the family makes, or the family is unknown.
    """
    _check_family(settings)
    side = shape[-1]
    blocks, rest = divmod(side, base_size(settings, shape))
    if len(shape) != 3 or shape[1] != side or not SMALLEST <= side <= LARGEST or rest or blocks & (blocks - 1):
        seven = " or 7 times one" if settings.family in FROM_SEVEN else ""
        raise UserError(
            f"network.family={settings.family} needs square images whose side is a power of two{seven} from "
            f"{SMALLEST} to {LARGEST}, and the data's samples are {'x'.join(map(str, shape))}: "
            "resize them, or choose network.family=mlp"
        )
    steps = blocks.bit_length() - 1
    widths = _hidden_widths(settings)
    return (widths + widths[-1:] * (steps - len(widths)))[:steps]


def _check_deviation(settings: NetworkSettings, heads: Heads) -> None:
    if not settings.minibatch_deviation:
        return
    why = ""
    if settings.family not in ("mlp", "mnist28"):
        why = "only network.family=mlp or mnist28 can"
    elif heads.latent:
        why = "an encoder must not see the batch"
    elif settings.family == "mnist28" and not settings.extra_width:
        raise UserError("network.minibatch_deviation=true needs network.extra_width with mnist28: set it, e.g. to 512")
    if why:
        raise UserError(f"network.minibatch_deviation=true with network.family={settings.family}: {why}: set it false")


def _check_family(settings: NetworkSettings) -> None:
    if settings.family not in FAMILIES:
        raise UserError(f"network.family={settings.family} is not known: choose one of {', '.join(FAMILIES)}")


def _hidden_widths(settings: NetworkSettings) -> list[int]:
    if not settings.widths:
        raise UserError("network.widths=[] is empty: give at least one width")
    return list(settings.widths)


def _hidden_width(settings: NetworkSettings, latent_dim: int) -> int:
    return settings.hidden_width or 2 * latent_dim + 8
