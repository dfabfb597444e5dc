"""Categories: draws by inverse CDF, one-hots, normalisation, and the running P(C)."""

import math

import pytest
import torch

from latentscale.errors import UserError
from latentscale.latents.categories import (
    CategoricalPrior,
    TrainablePrior,
    balanced,
    chosen_prior,
    draw_categories,
    gumbel,
    most_likely,
    normalised,
    one_hot,
    prior_summary,
    probabilities,
    uniform_prior,
)
from latentscale.latents.draws import Purpose, uniforms

SIZES = (4, 3)


def seeded(count: int, width: int, purpose: Purpose = Purpose.GENERATOR_CATEGORY) -> torch.Tensor:
    return torch.from_numpy(uniforms(7, purpose, 0, 0, count * width)).view(count, width)


def chi_square(counts: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((counts - expected).square() / expected).sum())


def test_draws_have_the_probabilities_of_the_prior() -> None:
    prior = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.05, 0.9, 0.05], dtype=torch.float64)
    count = 40_000
    drawn = draw_categories(seeded(count, 2), prior, SIZES)
    assert drawn.shape == (count, 7)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    for part, p in zip(drawn.split(list(SIZES), dim=1), prior.split(list(SIZES)), strict=True):
        assert (part.sum(1) == 1).all()
        # 0.1 % of chi-square with 3 and 2 degrees of freedom: 16.27 and 13.82
        assert chi_square(part.sum(0), count * p) < {4: 16.27, 3: 13.82}[len(p)]
        assert chi_square(part.sum(0), torch.full_like(p, count / len(p))) > 1000
    # labels are drawn independently of one another
    joint = torch.einsum("ni,nj->ij", drawn[:, :4], drawn[:, 4:]) - count * torch.outer(prior[:4], prior[4:])
    assert float((joint.square() / (count * torch.outer(prior[:4], prior[4:]))).sum()) < 31.26  # 11 degrees


def test_the_inverse_cdf_by_hand() -> None:
    prior = torch.tensor([0.25, 0.0, 0.5, 0.25], dtype=torch.float64)
    u = torch.tensor([[1e-16], [0.2499], [0.25], [0.7499], [0.75], [1 - 1e-16]], dtype=torch.float64)
    assert draw_categories(u, prior, (4,)).argmax(1).tolist() == [0, 0, 2, 2, 3, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_category_of_probability_0_is_never_drawn(dtype: torch.dtype) -> None:
    # seven times 1/7 sum to less than 1 in float32, and the last category must not catch the rest
    prior = torch.tensor([0.0, *[1 / 7] * 7, 0.0], dtype=dtype)
    ends = torch.tensor([[2.0**-53], [1 - 2.0**-53], [1 - 2.0**-25]], dtype=torch.float64)
    assert draw_categories(ends, prior, (9,)).argmax(1).tolist() == [1, 7, 7]
    assert draw_categories(seeded(5000, 1), prior, (9,)).sum(0)[[0, 8]].tolist() == [0, 0]


def test_one_hots_stand_side_by_side() -> None:
    labels = torch.tensor([[3, 0], [1, 2]])
    assert one_hot(labels, SIZES).tolist() == [[0, 0, 0, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0, 1]]
    scores = torch.tensor([[0.1, -3.0, 0.2, 0.0, -1.0, -2.0, -0.5]])
    assert most_likely(scores, SIZES).tolist() == [[0, 0, 1, 0, 0, 0, 1]]


@pytest.mark.parametrize("size", [2, 3, 10])
def test_normalised_categories_have_mean_0_and_variance_1_under_a_uniform_prior(size: int) -> None:
    each = normalised(torch.eye(size, dtype=torch.float64), (size,))
    torch.testing.assert_close(each.mean(0), torch.zeros(size).double(), rtol=0, atol=1e-14)
    torch.testing.assert_close(each.square().mean(0), torch.ones(size).double(), rtol=1e-14, atol=0)


def test_normalisation_of_several_labels_and_of_a_single_category() -> None:
    category = torch.tensor([[1.0, 0.0, 1.0, 0.0, 0.0, 1.0]])
    expected = [1.0, -1.0, 2 / math.sqrt(2), -1 / math.sqrt(2), -1 / math.sqrt(2), 1.0]
    assert normalised(category, (2, 3, 1)).tolist()[0] == pytest.approx(expected)


def test_probabilities_are_a_softmax_within_each_label() -> None:
    logits = torch.tensor([[math.log(1), math.log(3), 5.0, 5.0]])
    assert probabilities(logits, (2, 2)).tolist()[0] == pytest.approx([0.25, 0.75, 0.5, 0.5])
    assert probabilities(logits.bfloat16(), (2, 2)).dtype == torch.float32


def test_balanced_probabilities_have_a_uniform_mean() -> None:
    q = torch.tensor([[0.9, 0.1, 0.2, 0.3, 0.5], [0.7, 0.3, 0.6, 0.3, 0.1]], dtype=torch.float64)
    found = balanced(q, q.mean(0), (2, 3))
    # the first sample: 0.9 − 0.8 + 1/2 …, 0.2 − 0.4 + 1/3 …
    assert found[0].tolist() == pytest.approx([0.6, 0.4, 1 / 3 - 0.2, 1 / 3, 1 / 3 + 0.2])
    assert found.mean(0).tolist() == pytest.approx([0.5, 0.5, 1 / 3, 1 / 3, 1 / 3])


# the running P(C)


def test_the_average_by_hand() -> None:
    prior = CategoricalPrior((2,), decay=0.9, start=torch.tensor([0.2, 0.8])).double()
    before = prior.probabilities.clone()
    observed = torch.tensor([[1.0, 0.0], [0.6, 0.4], [0.5, 0.5], [0.3, 0.7]], dtype=torch.float64)
    prior.update(prior.contribution(observed[:1]) + prior.contribution(observed[1:]), torch.tensor(4.0), torch.ones(()))
    expected = 0.9 * before + 0.1 * torch.tensor([0.6, 0.4], dtype=torch.float64)
    torch.testing.assert_close(prior.probabilities, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_it_stays_on_the_simplex_whatever_the_batch(decay: float) -> None:
    prior = CategoricalPrior(SIZES, decay)
    generator = torch.Generator().manual_seed(2)
    for _ in range(200):
        q = probabilities(torch.randn(3, 7, generator=generator) * 20, SIZES)
        # early, with a mean that is not this batch's, entries below 0 arrive
        q = balanced(q, torch.rand(7, generator=generator), SIZES) if decay else q
        prior.update(prior.contribution(q), torch.tensor(3.0), torch.ones(()))
        assert (prior.probabilities >= 0).all()
        for part in prior.probabilities.split(list(SIZES)):
            assert float(part.sum()) == pytest.approx(1.0, abs=1e-6)
    assert prior.probabilities.dtype == torch.float32


def test_a_skipped_step_leaves_it_even_where_the_sum_is_not_finite() -> None:
    prior = CategoricalPrior(SIZES, 0.5)
    before = prior.probabilities.clone()
    prior.update(torch.full((7,), math.nan), torch.tensor(4.0), torch.zeros(()))
    assert torch.equal(prior.probabilities, before)
    prior.update(torch.tensor([4.0, 0, 0, 0, 4.0, 0, 0]), torch.tensor(4.0), torch.ones(()))
    assert not torch.equal(prior.probabilities, before)


def test_it_starts_uniform_and_says_how_many_categories_survive() -> None:
    assert CategoricalPrior(SIZES).probabilities.tolist() == pytest.approx([0.25] * 4 + [1 / 3] * 3)
    assert torch.equal(CategoricalPrior(SIZES).probabilities, uniform_prior(SIZES))
    summary = prior_summary(torch.tensor([0.985, 0.01, 0.005]))
    assert float(summary["surviving_categories"]) == 2
    assert float(summary["category_prior/max"]) == pytest.approx(0.985)
    assert float(summary["category_prior/min"]) == pytest.approx(0.005)


def test_a_chosen_prior_must_be_one() -> None:
    assert chosen_prior([0.1, 0.9], (2,)).tolist() == pytest.approx([0.1, 0.9])
    assert chosen_prior([0.333, 0.333, 0.333], (3,)).tolist() == pytest.approx([1 / 3] * 3)
    assert torch.equal(chosen_prior([], SIZES), uniform_prior(SIZES))
    assert chosen_prior([], ()).numel() == 0
    with torch.device("meta"):  # where sizes are counted before anything is allocated
        assert chosen_prior([0.1, 0.9], (2,)).shape == (2,)
    for wrong in ([0.5, 0.6], [1.0], [0.3, 0.3, 0.4], [0.0, 0.0]):
        with pytest.raises(UserError, match=r"method\.category_probabilities"):
            chosen_prior(wrong, (2,))


# the trainable P(C)


def test_soft_samples_choose_as_the_prior_does() -> None:
    prior = TrainablePrior(SIZES).double()
    with torch.no_grad():
        prior.logit_bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.05, 0.9, 0.05]).log() + 2.0)
    assert prior.probabilities().tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.05, 0.9, 0.05], rel=1e-6)
    count = 40_000
    drawn = prior(gumbel(seeded(count, 7, Purpose.GENERATOR_NOISE)), 0.5).detach()
    # the Gumbel-max law: the largest is category k with probability p_k
    for part, p in zip(drawn.split(list(SIZES), dim=1), prior.probabilities().detach().split(list(SIZES)), strict=True):
        torch.testing.assert_close(part.sum(1), torch.ones(count).double(), rtol=1e-12, atol=0)
        counts = torch.bincount(part.argmax(1), minlength=len(p))
        assert chi_square(counts, count * p) < {4: 16.27, 3: 13.82}[len(p)]
        # soft, not one-hot
        assert float(part.max(1).values.median()) < 0.999


def test_soft_samples_by_hand_and_their_temperature() -> None:
    prior = TrainablePrior((2,)).double()
    with torch.no_grad():
        prior.logit_bias.copy_(torch.tensor([0.0, math.log(3)]))
    noise = torch.tensor([[math.log(2), 0.0]], dtype=torch.float64)
    # weights 1·2 and 3·1, to the power 1/τ
    assert prior(noise, 1.0).tolist()[0] == pytest.approx([2 / 5, 3 / 5], rel=1e-7)
    assert prior(noise, 0.5).tolist()[0] == pytest.approx([4 / 13, 9 / 13], rel=1e-7)
    (slope,) = torch.autograd.grad(prior(noise, 0.5)[0, 0], prior.logit_bias)
    # dσ/dl = σ(1 − σ)/τ
    assert slope.tolist() == pytest.approx([4 / 13 * 9 / 13 * 2, -4 / 13 * 9 / 13 * 2], rel=1e-7)
