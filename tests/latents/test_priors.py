"""Prior laws: their functions agree with each other and with the law's moments."""

import math

import pytest
import torch

from latentscale.errors import UserError
from latentscale.latents.draws import Purpose, uniforms
from latentscale.latents.priors import PRIORS, Normal, Prior, Uniform, make_prior

LAWS = [Normal(), Uniform(), Uniform(1.0)]


@pytest.mark.parametrize("prior", LAWS)
def test_cdf_undoes_the_quantile(prior: Prior) -> None:
    u = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    z = prior.quantile(u)
    assert z.dtype == torch.float64
    torch.testing.assert_close(prior.cdf(z), u, rtol=0, atol=1e-12)


@pytest.mark.parametrize("prior", LAWS)
def test_density_integrates_to_one_with_the_stated_moments_and_entropy(prior: Prior) -> None:
    low, high = (max(prior.support[0], -12.0), min(prior.support[1], 12.0))
    # Midpoints: no node on the edge of a support.
    count = 200_000
    step = (high - low) / count
    z = low + (torch.arange(count, dtype=torch.float64) + 0.5) * step
    log_density = prior.log_density(z)
    density = log_density.exp()
    assert float(density.sum() * step) == pytest.approx(1.0, abs=1e-9)
    assert float((density * z).sum() * step) == pytest.approx(prior.mean, abs=1e-9)
    assert float((density * z**2).sum() * step) == pytest.approx(prior.variance, abs=1e-8)
    entropy = -float((density * log_density).sum() * step)
    assert prior.entropy(1) == pytest.approx(entropy, abs=1e-8)
    assert prior.entropy(5) == pytest.approx(5 * entropy, abs=1e-7)


def test_values_by_hand() -> None:
    assert Normal().entropy(2) == pytest.approx(2.8378770664093453)  # log(2πe)
    assert Uniform().entropy(1) == pytest.approx(math.log(2 * math.sqrt(3)))
    half = torch.tensor([0.25, 0.5], dtype=torch.float64)
    assert Normal().quantile(half).tolist() == pytest.approx([-0.6744897501960817, 0.0])
    assert Uniform().quantile(half).tolist() == pytest.approx([-math.sqrt(3) / 2, 0.0])
    assert Uniform(1.0).log_density(torch.tensor([0.5, 1.5])).tolist() == [
        pytest.approx(-math.log(2)),
        -math.inf,
    ]
    assert (Normal().is_standard, Uniform().is_standard, Uniform(1.0).is_standard) == (True, True, False)
    assert Uniform(1.0).variance == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", PRIORS)
def test_samples_follow_the_law(name: str) -> None:
    prior = make_prior(name)
    count = 20_000
    z = prior.sample(torch.from_numpy(uniforms(3, Purpose.EVALUATION, 0, 0, count))).sort().values
    # Kolmogorov-Smirnov against the law's closed form; 1.95/√n is p = 0.001.
    closed = {
        "normal": lambda t: 0.5 * (1 + torch.erf(t / math.sqrt(2))),
        "uniform": lambda t: (t / math.sqrt(3) + 1) / 2,
    }[name](z)
    steps = torch.arange(1, count + 1, dtype=torch.float64) / count
    distance = max(float((steps - closed).max()), float((closed - steps + 1 / count).max()))
    assert distance < 1.95 / math.sqrt(count)
    assert float(z.mean()) == pytest.approx(0, abs=4 / math.sqrt(count))
    assert float(z.var()) == pytest.approx(1, abs=0.05)


def test_an_unknown_law_is_refused() -> None:
    with pytest.raises(UserError, match=r"latent\.law=cauchy.*normal, uniform"):
        make_prior("cauchy")
