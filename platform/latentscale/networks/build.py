"""Networks from settings, for any data shape that the family can make."""

from dataclasses import dataclass

from torch import nn

from latentscale.errors import UserError
from latentscale.networks.mlp import MLPDiscriminator, MLPGenerator
from latentscale.networks.outputs import Heads
from latentscale.networks.residual import ResidualDiscriminator, ResidualGenerator
from latentscale.networks.skip import SkipDiscriminator, SkipGenerator
from latentscale.settings import setting

FAMILIES = ("residual", "skip", "mlp")
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
    base_width: int = setting(512, "width at 4x4 (residual, skip)", unit="channels", minimum=1)
    hidden_width: int = setting(
        0, "width of skip's dense layers beside the latent; 0 is 2 * latent.dim + 8", unit="features", minimum=0
    )


def build_generator(settings: NetworkSettings, latent_dim: int, shape: tuple[int, ...]) -> nn.Module:
    """A generator ``[b, latent_dim]`` -> ``[b, *shape]``, its parameters zero until initialised or loaded.

    Args:
        settings: family and widths.
        latent_dim: width of what the generator is fed: d_z, more where categories are concatenated.
        shape: of one sample, (C, H, W) or (D,).

    Raises:
        UserError: naming the `network.*` key, if the family cannot make that shape.
    """
    if settings.family == "mlp":
        return MLPGenerator(latent_dim, shape, _hidden_widths(settings))
    widths = step_widths(settings, shape)
    if settings.family == "residual":
        return ResidualGenerator(latent_dim, shape[0], widths, settings.base_width)
    return SkipGenerator(latent_dim, shape[0], widths, settings.base_width, _hidden_width(settings, latent_dim))


def build_discriminator(settings: NetworkSettings, latent_dim: int, shape: tuple[int, ...], heads: Heads) -> nn.Module:
    """A discriminator/encoder ``[b, *shape]`` -> `Discrimination`, its parameters zero until initialised or loaded.

    Args:
        settings: family and widths.
        latent_dim: d_z, which sets the width of `skip`'s dense layer whatever the heads are.
        shape: of one sample, (C, H, W) or (D,).
        heads: those to build; one of width 0 does not exist.

    Raises:
        UserError: naming the `network.*` key, if the family cannot take that shape.
    """
    if settings.family == "mlp":
        return MLPDiscriminator(shape, _hidden_widths(settings), heads)
    widths = step_widths(settings, shape)
    if settings.family == "residual":
        return ResidualDiscriminator(shape[0], widths, settings.base_width, heads)
    return SkipDiscriminator(shape[0], widths, settings.base_width, _hidden_width(settings, latent_dim), heads)


def step_widths(settings: NetworkSettings, shape: tuple[int, ...]) -> list[int]:
    """The widths of the ×2 steps of an image of ``shape``, from its resolution downwards to 8↔4.

    Raises:
        UserError: if the shape is no square image of a power-of-two side, or the family is unknown.
    """
    _check_family(settings)
    side = shape[-1]
    if len(shape) != 3 or shape[1] != side or not SMALLEST <= side <= LARGEST or side & (side - 1):
        raise UserError(
            f"network.family={settings.family} needs square images whose side is a power of two from "
            f"{SMALLEST} to {LARGEST}, and the data's samples are {'x'.join(map(str, shape))}: "
            "resize them, or choose network.family=mlp"
        )
    steps = side.bit_length() - 3
    widths = _hidden_widths(settings)
    return (widths + widths[-1:] * (steps - len(widths)))[:steps]


def _check_family(settings: NetworkSettings) -> None:
    if settings.family not in FAMILIES:
        raise UserError(f"network.family={settings.family} is not known: choose one of {', '.join(FAMILIES)}")


def _hidden_widths(settings: NetworkSettings) -> list[int]:
    if not settings.widths:
        raise UserError("network.widths=[] is empty: give at least one width")
    return list(settings.widths)


def _hidden_width(settings: NetworkSettings, latent_dim: int) -> int:
    return settings.hidden_width or 2 * latent_dim + 8
