"""NT-Xent by hand and against its definition, pair by pair."""

import math

import pytest
import torch

from latentscale.losses.nt_xent import contrastive


def test_two_samples_by_hand() -> None:
    # views of the first sample both along x, of the second both along y, of any length
    first = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    second = torch.tensor([[5.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    # each view: its partner at cosine 1, two strangers at 0
    expected = -math.log(math.exp(2) / (math.exp(2) + 2))
    assert float(contrastive(first, second, 1, 0.5)) == pytest.approx(expected, rel=1e-14)


def test_views_that_say_nothing_cost_the_logarithm_of_the_others() -> None:
    same = torch.ones(4, 3, dtype=torch.float64)
    assert float(contrastive(same, same, 1, 0.1)) == pytest.approx(math.log(7), rel=1e-14)


@pytest.mark.parametrize("streams", [1, 2, 3])
def test_it_is_its_definition_within_each_stream(streams: int) -> None:
    torch.manual_seed(1)
    b, temperature = 3, 0.7
    first, second = (torch.randn(b * streams, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    losses = []
    for stream in range(streams):
        views = [*first[stream::streams], *second[stream::streams]]
        for i, a in enumerate(views):
            powers = {
                j: torch.exp((a @ other) / (a.norm() * other.norm()) / temperature)
                for j, other in enumerate(views)
                if j != i
            }
            losses.append(-torch.log(powers[(i + b) % (2 * b)] / sum(powers.values())))
    expected = sum(losses) / len(losses)
    found = contrastive(first, second, streams, temperature)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for one, other in zip(
        torch.autograd.grad(found, (first, second)), torch.autograd.grad(expected, (first, second)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_half_precision_features_are_compared_in_float32() -> None:
    torch.manual_seed(2)
    first, second = torch.randn(4, 8).bfloat16(), torch.randn(4, 8).bfloat16()
    found = contrastive(first, second, 2, 0.5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), contrastive(first.double(), second.double(), 2, 0.5), rtol=1e-5, atol=0)
