"""Builds generators, discriminators and classifiers from `NetworkSettings` for a data shape."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from latentscale.errors import UserError
from latentscale.networks.biggan import BigGANDiscriminator, BigGANGenerator
from latentscale.networks.codebook import CGPGANDiscriminator, CGPGANGenerator, CodebookGenerator
from latentscale.networks.conditional_generator import ConditionalGenerator
from latentscale.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.mlp import MLPDiscriminator, MLPGenerator
from latentscale.networks.mnist import (
    MNIST28Discriminator,
    MNIST28Generator,
    MNIST32Discriminator,
    MNIST32Generator,
)
from latentscale.networks.recovery import RecoveryDiscriminator, RecoveryGenerator
from latentscale.networks.residual import ResidualDiscriminator, ResidualGenerator
from latentscale.networks.skip import SkipDiscriminator, SkipGenerator
from latentscale.networks.spec import ModelSpec
from latentscale.networks.style import StyleGenerator, SynthesisNetwork
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
BASE_7_FAMILIES = ("mnist28", "recovery", "dcgan")
"""Families that also make images with sides of 7·2ⁿ pixels, whose smallest map is 7×7 instead of 4×4."""
SMALLEST_SIDE, LARGEST_SIDE = 8, 1024


@dataclass
class NetworkSettings:
    """Architecture and widths of a model's networks. The defaults are those published for 256² images."""

    family: str = setting("residual", "architecture of the generator and the discriminator", choices=FAMILIES)
    widths: list[int] = setting(
        factory=lambda: [64, 128, 256, 512, 512, 512],
        help="channels of each x2 block, from the image's resolution downwards; the last is repeated as needed, "
        "surplus ones are ignored; mlp: width of each hidden layer",
        unit="channels",
        minimum=1,
    )
    base_width: int = setting(512, "width of the smallest map, 4x4 or 7x7 (not mlp, dcgan)", unit="channels", minimum=1)
    hidden_width: int = setting(
        0,
        "width of the dense layers after the latent and before the heads; 0 chooses 2 * latent.dim + 8 for skip, "
        "2 * latent.dim for cgpgan and, for codebook (discriminator only), twice the width of all heads",
        unit="features",
        minimum=0,
    )
    extra_width: int = setting(
        0,
        "mlp, mnist28: width of one more hidden layer of the discriminator; 0 for none (Cho 2025, §4.1: 512)",
        unit="features",
        minimum=0,
    )
    minibatch_deviation: bool = setting(
        False,
        "mlp, mnist28: the discriminator's last hidden layer also takes the deviations over each stream's batch; "
        "mnist28 also needs extra_width",
    )
    pages: bool = setting(
        True, "codebook: categories are trainable embeddings (pages); false: one-hots concatenated with the latent"
    )
    mapping_layers: int = setting(
        2,
        "style: layers of the generator's mapping network; 0 for none, if the method has one of its own",
        minimum=0,
        maximum=100,
    )
    mapping_rate: float = setting(0.01, "style: learning rate multiplier of the mapping network", above=0)


def build_generator(
    settings: NetworkSettings, latent_dim: int, shape: tuple[int, ...], category_dim: int = 0
) -> nn.Module:
    """A generator ``[b, latent_dim + category_dim]`` -> ``[b, *shape]``, whose parameters are zero until initialised.

    Args:
        settings: family and widths.
        latent_dim: d_z, which also sets the width of some families' dense layers.
        shape: of one sample, (C, H, W) or (D,).
        category_dim: Σ d_c if categories are concatenated with the latent, else 0.

    Raises:
        UserError: if the family does not support that shape, naming the ``network.*`` key.
    """
    family, input_dim, base = settings.family, latent_dim + category_dim, settings.base_width
    if family == "mlp":
        return MLPGenerator(input_dim, shape, _widths(settings))
    widths, channels, size = block_widths(settings, shape), shape[0], base_size(settings, shape)
    match family:
        case "skip":
            return SkipGenerator(input_dim, channels, widths, base, _hidden_width(settings, latent_dim))
        case "cgpgan":
            return CGPGANGenerator(input_dim, channels, widths, base, settings.hidden_width or 2 * latent_dim)
        case "codebook":
            return CGPGANGenerator(input_dim, channels, widths, base, hidden_width=0)
        case "mnist32":
            return MNIST32Generator(input_dim, channels, widths, base)
        case "mnist28":
            return MNIST28Generator(input_dim, channels, widths, base, size)
        case "style" if settings.mapping_layers:
            return StyleGenerator(input_dim, channels, widths, base, settings.mapping_rate, settings.mapping_layers)
        case "style":
            return SynthesisNetwork(input_dim, channels, widths, base)
        case "recovery":
            return RecoveryGenerator(input_dim, channels, widths, base, size)
        case "dcgan":
            return DCGANGenerator(input_dim, channels, widths, size)
        case "biggan":
            return BigGANGenerator(input_dim, channels, widths, base)
        case _:
            return ResidualGenerator(input_dim, channels, widths, base)


def build_conditional_generator(settings: NetworkSettings, spec: ModelSpec) -> nn.Module:
    """A generator of latents ``[b, d_z]`` and categories ``[b, Σ d_c]``.

    Raises:
        UserError: if the family does not support that shape or the number of labels, naming the ``network.*`` key.
    """
    if settings.family == "codebook" and settings.pages:
        return _codebook_generator(settings, spec.latent_dim, spec.categories, spec.shape)
    generator = build_generator(settings, spec.latent_dim, spec.shape, spec.category_dim)
    return ConditionalGenerator(generator, spec.categories)


def _codebook_generator(
    settings: NetworkSettings, latent_dim: int, sizes: Sequence[int], shape: tuple[int, ...]
) -> CodebookGenerator:
    half, odd = divmod(settings.base_width, 2)
    if odd or half % len(sizes):
        raise UserError(
            f"latent.categories has {len(sizes)} labels, but with network.pages=true their number must divide half of "
            f"network.base_width={settings.base_width}: choose another number of labels, or network.pages=false"
        )
    return CodebookGenerator(latent_dim, sizes, shape[0], block_widths(settings, shape), settings.base_width)


def build_discriminator(settings: NetworkSettings, latent_dim: int, shape: tuple[int, ...], heads: Heads) -> nn.Module:
    """A discriminator or encoder ``[b, *shape]`` -> `DiscriminatorOutput`; its parameters are zero until initialised.

    Args:
        settings: family and widths.
        latent_dim: d_z, which sets the width of the dense layer of ``skip`` and ``cgpgan`` for any heads.
        shape: of one sample, (C, H, W) or (D,).
        heads: widths of the heads; a head of width 0 is not built.

    Raises:
        UserError: if the family does not support that shape, naming the ``network.*`` key.
    """
    family, base = settings.family, settings.base_width
    _check_minibatch_deviation(settings, heads)
    if family == "mlp":
        widths = [*_widths(settings), *([settings.extra_width] if settings.extra_width else [])]
        return MLPDiscriminator(shape, widths, heads, settings.minibatch_deviation)
    widths, channels, size = block_widths(settings, shape), shape[0], base_size(settings, shape)
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
            # style: published only as "a CNN with skips"
            return ResidualDiscriminator(channels, widths, base, heads)


def build_classifier(settings: NetworkSettings, spec: ModelSpec) -> nn.Module:
    """Q ``[b, *shape]`` -> `DiscriminatorOutput`: the discriminator's architecture with the ``classes`` head alone.

    It has no minibatch deviation, because a sample's category must not depend on the other samples.

    Raises:
        UserError: if the family does not support that shape, naming the ``network.*`` key.
    """
    settings = replace(settings, minibatch_deviation=False)
    return build_discriminator(settings, spec.latent_dim, spec.shape, Heads(adversarial=0, classes=spec.category_dim))


def base_size(settings: NetworkSettings, shape: tuple[int, ...]) -> int:
    """Height and width of the smallest feature map, 4 or 7, for images of ``shape``."""
    return 7 if settings.family in BASE_7_FAMILIES and shape[-1] % 7 == 0 else 4


def block_widths(settings: NetworkSettings, shape: tuple[int, ...]) -> list[int]:
    """Channels of each ×2 block for images of ``shape``, from their resolution down to 8↔4 (or 14↔7).

    Raises:
        UserError: if the shape is not that of a square image with a side that the family supports, or the family is
            unknown.
    """
    _check_family(settings)
    side = shape[-1]
    factor, rest = divmod(side, base_size(settings, shape))
    if (
        len(shape) != 3
        or shape[1] != side
        or not SMALLEST_SIDE <= side <= LARGEST_SIDE
        or rest
        or factor & (factor - 1)
    ):
        seven = " or 7 times a power of two" if settings.family in BASE_7_FAMILIES else ""
        raise UserError(
            f"network.family={settings.family} needs square images whose side is a power of two{seven} from "
            f"{SMALLEST_SIDE} to {LARGEST_SIDE}, but the data's samples are {'x'.join(map(str, shape))}: "
            "resize them, or choose network.family=mlp"
        )
    blocks = factor.bit_length() - 1
    widths = _widths(settings)
    return (widths + widths[-1:] * (blocks - len(widths)))[:blocks]


def _check_minibatch_deviation(settings: NetworkSettings, heads: Heads) -> None:
    if not settings.minibatch_deviation:
        return
    reason = ""
    if settings.family not in ("mlp", "mnist28"):
        reason = "only network.family=mlp and mnist28 support it"
    elif heads.latent:
        reason = "an encoder's output must not depend on the batch"
    elif settings.family == "mnist28" and not settings.extra_width:
        raise UserError(
            "network.minibatch_deviation=true with network.family=mnist28 needs network.extra_width: set it, e.g. to "
            "512"
        )
    if reason:
        raise UserError(
            f"network.minibatch_deviation=true with network.family={settings.family} cannot be used, since {reason}: "
            "set it to false"
        )


def _check_family(settings: NetworkSettings) -> None:
    if settings.family not in FAMILIES:
        raise UserError(f"network.family={settings.family} is unknown: choose one of {', '.join(FAMILIES)}")


def _widths(settings: NetworkSettings) -> list[int]:
    if not settings.widths:
        raise UserError("network.widths=[] is empty: give at least one width")
    return list(settings.widths)


def _hidden_width(settings: NetworkSettings, latent_dim: int) -> int:
    return settings.hidden_width or 2 * latent_dim + 8
