"""The blurs against their formulas and against a depthwise convolution."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from latentscale.networks.blur import Blur, Kind, blur_by_shifts, blur_matrix

SIZES = [4, 8, 16, 64]


def noise(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)


def convolution(kind: Kind, x: Tensor) -> Tensor:
    """The published definition, literally."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
    kernel = (torch.outer(taps, taps) / 64).expand(x.shape[1], 1, 4, 4)
    if kind == "up":
        b, c, h, w = x.shape
        inserted = x.new_zeros(b, c, 2 * h, 2 * w)
        inserted[:, :, ::2, ::2] = x
        # zeros follow each sample, hence two rows of padding before and one after
        return F.conv2d(F.pad(inserted, (2, 1, 2, 1)), kernel * 4, groups=x.shape[1])
    if kind == "down":
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), kernel, stride=2, groups=x.shape[1])
    return F.conv2d(F.pad(x, (1, 2, 1, 2)), kernel, groups=x.shape[1])


@pytest.mark.parametrize("kind", ["up", "down", "same"])
@pytest.mark.parametrize("size", SIZES)
def test_equal_to_the_convolution(kind: Kind, size: int) -> None:
    x = noise(size)
    blur = Blur(kind, size).double()
    torch.testing.assert_close(blur(x), convolution(kind, x), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("kind", ["up", "down", "same"])
@pytest.mark.parametrize("size", [4, 16, 128])
def test_shifted_maps_equal_the_matrix(kind: Kind, size: int) -> None:
    x = noise(size)
    matrix = blur_matrix(kind, size).double()
    expected = matrix.t() @ (x @ matrix)
    shifted = blur_by_shifts(kind, blur_by_shifts(kind, x).mT).mT
    torch.testing.assert_close(shifted, expected, rtol=1e-13, atol=1e-14)
    if size == 128:
        torch.testing.assert_close(Blur(kind, size).double()(x), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("size", SIZES)
def test_blur_up_by_its_formula(size: int) -> None:
    x = noise(size)
    out = Blur("up", size).double()(x)
    padded = F.pad(x, (1, 1, 1, 1))
    near = {0: (0.25, 0.75, 0.0), 1: (0.0, 0.75, 0.25)}
    for row in (0, 1):
        for column in (0, 1):
            expected = sum(
                near[row][i] * near[column][j] * padded[:, :, i : i + size, j : j + size]
                for i in range(3)
                for j in range(3)
            )
            torch.testing.assert_close(out[:, :, row::2, column::2], expected, rtol=1e-13, atol=1e-14)


def test_values_by_hand() -> None:
    ramp = torch.tensor([[4.0, 8.0]])
    assert (ramp @ blur_matrix("up", 2)).tolist() == [[3.0, 5.0, 7.0, 6.0]]
    ramp = torch.tensor([[8.0, 16.0, 24.0, 32.0]])
    assert (ramp @ blur_matrix("down", 4)).tolist() == [[(24 + 48 + 24) / 8, (16 + 72 + 96) / 8]]
    assert (ramp @ blur_matrix("same", 4)).tolist() == [
        [(24 + 48 + 24) / 8, (8 + 48 + 72 + 32) / 8, (16 + 72 + 96) / 8, (24 + 96) / 8]
    ]


@pytest.mark.parametrize("kind", ["up", "down", "same"])
def test_a_constant_is_unchanged_away_from_the_border(kind: Kind) -> None:
    out = Blur(kind, 16).double()(torch.ones(1, 1, 16, 16, dtype=torch.float64))
    assert bool((out[:, :, 2:-2, 2:-2] == 1).all())


@pytest.mark.parametrize("size", SIZES)
def test_up_is_four_times_the_adjoint_of_down(size: int) -> None:
    small, large = noise(size), noise(2 * size)
    up, down = Blur("up", size).double(), Blur("down", 2 * size).double()
    torch.testing.assert_close((up(small) * large).sum(), 4 * (small * down(large)).sum(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [8, 32])
def test_constants_are_exact_in_every_precision_and_not_in_the_state_dict(size: int) -> None:
    blur = Blur("down", size)
    assert blur.state_dict() == {}
    exact = Blur("down", size).double().constant
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert torch.equal(Blur("down", size).to(dtype).constant.double(), exact)
