"""Published parameter counts, widths at every resolution, and errors."""

import pytest
import torch

from latentscale.errors import UserError
from latentscale.networks.discriminator_output import Heads
from latentscale.networks.factory import NetworkSettings, block_widths, build_discriminator, build_generator
from latentscale.settings import check_ranges

IMAGE = (3, 256, 256)
INFOGAN = Heads(adversarial=1, latent=1024, log_variance=1024)
WITHOUT_LOG_VARIANCE = Heads(adversarial=1, latent=1024)


def parameters(family: str, heads: Heads | None) -> int:
    settings = NetworkSettings(family=family)
    with torch.device("meta"):
        network = (
            build_generator(settings, 1024, IMAGE)
            if heads is None
            else build_discriminator(settings, 1024, IMAGE, heads)
        )
    assert all(parameter.is_meta for parameter in network.parameters())
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("family", "heads", "exact", "published_millions"),
    [
        # counted by hand from the layers: dense 2,107,400 + 16,850,944; convolutions 16,478,208 + biases 3,968;
        # toRGB 7,488 + 3.
        ("skip", None, 35_448_011, 35.4),
        # fromRGB 256; convolutions 14,155,776 + biases 3,968; image skips 5,952; dense 16,844,808; heads 4,214,793.
        ("skip", INFOGAN, 35_225_553, 35.2),
        ("skip", WITHOUT_LOG_VARIANCE, 33_119_185, 33.1),
        # dense 8,388,608 + 512; convolutions 16,478,208 + biases 3,968; skips 958,464; toRGB 195.
        ("residual", None, 25_829_955, 25.8),
    ],
)
def test_published_parameter_counts(family: str, heads: Heads | None, exact: int, published_millions: float) -> None:
    assert parameters(family, heads) == exact
    assert round(exact / 1e6, 1) == published_millions


def test_published_parameter_count_of_the_residual_discriminator() -> None:
    # fromRGB 256; convolutions 14,155,776 + biases 3,968; skips 700,416; heads 8192·2049 + 2049. The published 31.7 M
    # is 31.648 M rounded twice, first to 31.65 M.
    exact = 256 + 14_155_776 + 3_968 + 700_416 + 8192 * 2049 + 2049
    assert parameters("residual", INFOGAN) == exact == 31_647_873
    assert abs(exact / 1e6 - 31.7) < 0.06
    assert parameters("residual", WITHOUT_LOG_VARIANCE) == exact - 8193 * 1024


def test_widths_are_taken_from_the_high_resolution_end() -> None:
    settings = NetworkSettings(widths=[8, 16, 32])
    assert block_widths(settings, (3, 8, 8)) == [8]
    assert block_widths(settings, (1, 16, 16)) == [8, 16]
    assert block_widths(settings, (3, 32, 32)) == [8, 16, 32]
    assert block_widths(settings, (3, 128, 128)) == [8, 16, 32, 32, 32]
    assert len(block_widths(settings, (3, 1024, 1024))) == 8


@pytest.mark.parametrize("family", ["residual", "skip"])
@pytest.mark.parametrize("side", [8, 16, 32, 64, 128, 256, 512, 1024])
def test_every_power_of_two(family: str, side: int) -> None:
    settings = NetworkSettings(family=family, widths=[2, 3], base_width=4)
    with torch.device("meta"):
        generator = build_generator(settings, 5, (3, side, side))
        discriminator = build_discriminator(settings, 5, (3, side, side), Heads(1, 5))
        image = generator(torch.zeros(2, 5))
        seen = discriminator(image)
    assert image.shape == (2, 3, side, side)
    assert seen.latent.shape == (2, 5)
    assert seen.features.shape == (2, 4 * 4 * 4)


def test_the_hidden_width_of_skip() -> None:
    shape, heads = (3, 8, 8), Heads(1, 5)
    automatic = NetworkSettings(family="skip", widths=[2], base_width=2)
    chosen = NetworkSettings(family="skip", widths=[2], base_width=2, hidden_width=11)
    for settings, width in ((automatic, 18), (chosen, 11)):
        assert build_generator(settings, 5, shape).hidden.weight.shape == (width, 5)
        assert build_discriminator(settings, 5, shape, heads).hidden.weight.shape == (width, 32)


def test_mlp_takes_any_shape() -> None:
    settings = NetworkSettings(family="mlp", widths=[7, 9])
    for shape in ((2,), (1, 28, 28)):
        generator = build_generator(settings, 5, shape)
        discriminator = build_discriminator(settings, 5, shape, Heads(2, 5))
        seen = discriminator(generator(torch.zeros(3, 5)))
        assert seen.adversarial.shape == (3, 2)
        assert seen.features.shape == (3, 9)


@pytest.mark.parametrize("shape", [(2,), (1, 28, 28), (3, 16, 32), (3, 4, 4), (3, 2048, 2048)])
def test_shapes_that_a_convolutional_family_does_not_support(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"network\.family=residual .*power of two.*network\.family=mlp"):
        build_generator(NetworkSettings(), 5, shape)
    with pytest.raises(UserError, match=r"network\.family=skip"):
        build_discriminator(NetworkSettings(family="skip"), 5, shape, Heads())


def test_settings_out_of_range() -> None:
    with pytest.raises(UserError, match=r"network\.widths=0 "):
        check_ranges(NetworkSettings(widths=[64, 0]), "network.")
    with pytest.raises(UserError, match=r"network\.family=unet"):
        check_ranges(NetworkSettings(family="unet"), "network.")
    with pytest.raises(UserError, match=r"network\.family=unet"):
        build_generator(NetworkSettings(family="unet"), 5, (3, 8, 8))
    with pytest.raises(UserError, match=r"network\.widths=\[\]"):
        build_generator(NetworkSettings(family="mlp", widths=[]), 5, (2,))
