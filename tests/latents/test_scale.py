"""The dynamic latent scale against hand-worked values."""

import math

import pytest
import torch

from latentscale.latents.priors import Normal, Uniform
from latentscale.latents.scale import SCALE_FLOOR, LatentScale


def scale_with(values: list[float]) -> LatentScale:
    scale = LatentScale(len(values)).double()
    scale.variance.copy_(torch.tensor(values, dtype=torch.float64))
    return scale


def test_scale_by_hand() -> None:
    # d = 4, Σv = 2: s = sqrt(2 v).
    scale = scale_with([0.5, 1.0, 0.32, 0.18]).scale()
    assert scale.tolist() == pytest.approx([1.0, math.sqrt(2), 0.8, 0.6])
    assert float(scale.square().sum()) == pytest.approx(4.0)


def test_any_equal_start_gives_one() -> None:
    for start in (1e-4, 1.0):
        assert LatentScale(100, start).scale().tolist() == pytest.approx([1.0] * 100, abs=1e-6)


def test_update_pools_phases_by_their_counts() -> None:
    # PVDGAN: 2 samples of the discriminator phase and 1 of the generator phase, with second moments 4 and 1:
    # pooled (2·4 + 1·1)/3 = 3, not the mean of the means 2.5.
    scale = LatentScale(2, start=1.0, decay=0.9).double()
    discriminator = torch.tensor([[2.0, 0.0], [-2.0, 0.0]], dtype=torch.float64)
    generator = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    total = scale.contribution(discriminator) + scale.contribution(generator)
    assert total.tolist() == [9.0, 9.0]
    scale.update(total, 3, torch.tensor(1.0))
    assert scale.variance.tolist() == pytest.approx([0.9 + 0.1 * 3.0] * 2)
    # The moment is not centred: the first column's mean is 1/3, its variance would be less than 3.
    scale.update(torch.tensor([0.0, 6.0]), torch.tensor(2.0), torch.tensor(1.0))
    assert scale.variance.tolist() == pytest.approx([0.9 * 1.2, 0.9 * 1.2 + 0.1 * 3.0])


def test_update_is_skipped_untouched_even_by_nan() -> None:
    scale = LatentScale(2, start=0.25)
    scale.update(torch.tensor([math.nan, math.inf]), 0, torch.tensor(0.0))
    assert scale.variance.tolist() == [0.25, 0.25]


def test_half_precision_predictions_are_summed_in_float32() -> None:
    # 256 + 1 is not representable in bfloat16's 8 bits: summing there would lose every 1.
    latent = torch.tensor([[16.0]] + [[1.0]] * 100, dtype=torch.bfloat16)
    total = LatentScale.contribution(latent)
    assert total.dtype == torch.float32
    assert total.item() == 356.0


def test_contribution_carries_no_gradient() -> None:
    assert not LatentScale.contribution(torch.ones(2, 2, requires_grad=True)).requires_grad


def test_entropy_by_hand() -> None:
    scale = scale_with([0.5, 1.0, 0.32, 0.18])
    logs = math.log(math.sqrt(2)) + math.log(0.8) + math.log(0.6)
    assert float(scale.entropy(Normal())) == pytest.approx(2 * math.log(2 * math.pi * math.e) + logs)
    assert float(scale.entropy(Uniform())) == pytest.approx(4 * math.log(2 * math.sqrt(3)) + logs)


def test_entropy_is_largest_for_equal_variances_and_floored_without_variance() -> None:
    equal = float(scale_with([1.0, 1.0]).entropy(Normal()))
    assert float(scale_with([1.5, 0.5]).entropy(Normal())) < equal
    floored = float(scale_with([1.0, 0.0]).entropy(Normal()))
    assert floored == pytest.approx(equal + math.log(math.sqrt(2)) + math.log(SCALE_FLOOR))
    for dtype in (torch.float32, torch.float64):
        nothing = LatentScale(3, start=0.0).to(dtype)
        assert math.isfinite(float(nothing.entropy(Normal())))


def test_effective_dimensions_by_hand() -> None:
    assert float(scale_with([0.3] * 7).effective_dimensions()) == pytest.approx(7.0)
    assert float(scale_with([2.0, 0.0, 0.0]).effective_dimensions()) == pytest.approx(1.0)
    assert float(scale_with([3.0, 1.0]).effective_dimensions()) == pytest.approx(16 / 10)
    # Squares of these underflow float32.
    assert float(LatentScale(5, start=1e-30).effective_dimensions()) == pytest.approx(5.0)


def test_state_is_the_variance_alone() -> None:
    assert set(LatentScale(3).state_dict()) == {"variance"}
