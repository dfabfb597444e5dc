"""Distances between sets of samples, by hand and pair by pair."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from latentscale.losses.distances import squared_mmd


def pair_by_pair(x: list[Tensor], y: list[Tensor]) -> Tensor:
    """One stream's biased MMD², the kernel written out for every pair."""
    distances = sorted(math.dist(a.tolist(), b.tolist()) for a, b in itertools.combinations([*x, *y], 2))
    median = distances[(len(distances) - 1) // 2]

    def mean(first: list[Tensor], second: list[Tensor]) -> Tensor:
        values = [torch.exp(-((a - b) ** 2).sum() / (2 * median**2)) for a in first for b in second]
        return sum(values) / len(values)

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


def test_by_hand() -> None:
    # one stream, x = 0 and 2, y = 1 and 5: distances 1 1 2 3 4 5, the lower median 2, so k = e^(−d²/8)
    x, y = torch.tensor([[0.0], [2.0]]).double(), torch.tensor([[1.0], [5.0]]).double()
    within_x = (2 + 2 * math.exp(-4 / 8)) / 4
    within_y = (2 + 2 * math.exp(-16 / 8)) / 4
    across = (math.exp(-1 / 8) + math.exp(-25 / 8) + math.exp(-1 / 8) + math.exp(-9 / 8)) / 4
    assert squared_mmd(x, y, 1).item() == pytest.approx(within_x + within_y - 2 * across, rel=1e-14)


def test_each_stream_has_its_own_bandwidth_and_gradient() -> None:
    generator = torch.Generator().manual_seed(3)
    streams, n, m = 2, 3, 4
    x = torch.randn(n * streams, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(m * streams, 5, generator=generator, dtype=torch.float64)
    y[1::2] *= 7  # the streams' medians differ
    x.requires_grad_(True)
    y.requires_grad_(True)
    expected = sum(pair_by_pair(list(x[k::streams]), list(y[k::streams])) for k in range(streams)) / streams
    found = squared_mmd(x, y, streams)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)
    # math.dist has no gradient: neither has the bandwidth
    for mine, by_hand in zip(torch.autograd.grad(found, (x, y)), torch.autograd.grad(expected, (x, y)), strict=True):
        torch.testing.assert_close(mine, by_hand, rtol=1e-10, atol=1e-15)


def test_it_is_zero_for_equal_sets_and_grows_with_their_distance() -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert squared_mmd(x, x.flip(0), 1).item() == pytest.approx(0.0, abs=1e-15)
    values = [squared_mmd(x, x + shift, 1).item() for shift in (0.5, 1.0, 4.0)]
    assert values == sorted(values)
    assert values[0] > 1e-3


def test_points_that_all_coincide_give_zero_and_finite_gradients() -> None:
    x = torch.ones(4, 2, dtype=torch.float64, requires_grad=True)
    value = squared_mmd(x, torch.ones(4, 2, dtype=torch.float64), 2)
    assert value.item() == pytest.approx(0.0, abs=1e-15)
    (slope,) = torch.autograd.grad(value, x)
    assert torch.isfinite(slope).all()


def test_half_precision_is_widened() -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert squared_mmd(x, x + 1, 2).dtype == torch.float32
