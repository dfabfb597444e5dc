"""CGPGAN, categorical and Elastic InfoGAN and the vanilla GAN with categories, against their equations in float64."""

import math

import pytest
import torch
from steps import assert_compiles, assert_same, run
from torch import Tensor, nn
from toys import D_Z, toy_batch, toy_method

from latentscale.distributed.statistics import FusedStatistics
from latentscale.errors import UserError
from latentscale.latents.draws import Purpose
from latentscale.losses.classification import classify_with_gradient, cross_entropy
from latentscale.methods.base import Method
from latentscale.methods.categorical import drawn_category
from latentscale.methods.phase import Batch
from latentscale.methods.registry import METHODS
from latentscale.networks.discriminator_output import DiscriminatorOutput
from latentscale.networks.factory import NetworkSettings
from latentscale.networks.spec import ModelSpec
from latentscale.training.step import prepare_batches

SIZES = (3, 2)
ENDS = ((0, 3), (3, 5))
PRIOR = torch.tensor([0.5, 0.2, 0.3, 0.9, 0.1], dtype=torch.float64)
STREAMS, B = 2, 4
TEMPERATURE = 0.7
NAMES = ("vanilla", "categorical_infogan", "elastic_infogan", "cgpgan")
WEIGHTS = {
    "vanilla": {"r1": 0.7},
    "categorical_infogan": {"r1": 0.7, "classification_weight": 1.7},
    "elastic_infogan": {"r1": 0.7, "classification_weight": 1.7, "temperature": TEMPERATURE, "prior_start_step": 5},
    "cgpgan": {"r1": 0.0, "r2": 0.4, "classification_weight": 1.7, "cgp_weight": 2.5, "prior_start_step": 5},
}


def category_method(name: str, **settings: object) -> Method:
    """With a P(C) that is not uniform, and a classifier that is not indifferent."""
    method = toy_method(name, SIZES, **{**WEIGHTS[name], **settings})
    with torch.no_grad():
        for statistic in method.statistics.values():
            statistic.probabilities.copy_(PRIOR)
        if "prior" in method.networks:
            method.networks["prior"].logit_bias.copy_(torch.tensor([0.3, -0.4, 0.1, 1.0, -0.5]))
        if "classifier" in method.networks:
            for parameter in method.networks["classifier"].parameters():
                parameter.mul_(3.0)
    return method


def category_batch(method: Method, step: int = 0) -> Batch:
    """A batch of that step, prepared as the loop does."""
    batch = toy_batch(method, STREAMS, B)._replace(schedule=method.schedule(step, B))
    return prepare_batches(method, [batch], torch.float64)[0]


def slopes(method: Method, names: tuple[str, ...], loss: Tensor) -> dict[str, Tensor]:
    """The gradient of a loss written out by hand, for every parameter of some networks."""
    named = {f"{name}.{key}": p for name in names for key, p in method.networks[name].named_parameters()}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), retain_graph=True), strict=True))


# the equations, one sample at a time


def softplus(x: Tensor) -> Tensor:
    return torch.log1p(torch.exp(x))


def category_of(name: str, method: Method, draw: Tensor) -> Tensor:
    """One sample's categories: the first whose cumulated probability exceeds the uniform; Elastic's are soft."""
    category = []
    for label, (begin, end) in enumerate(ENDS):
        if name == "elastic_infogan":
            free = method.networks["prior"].logit_bias[begin:end]
            p = torch.exp(free) / torch.exp(free).sum()
            powers = torch.exp((torch.log(p) + draw[begin:end]) / TEMPERATURE)
            category.append(powers / powers.sum())
            continue
        below, chosen = 0.0, end - begin - 1
        for k in range(end - begin):
            below += float(PRIOR[begin + k])
            if float(draw[label]) < below:
                chosen = k
                break
        category.append(torch.eye(end - begin, dtype=torch.float64)[chosen])
    return torch.cat(category)


def generate(method: Method, z: Tensor, c: Tensor) -> Tensor:
    normal = [(c[begin:end] * (end - begin) - 1) / math.sqrt(end - begin - 1) for begin, end in ENDS]
    return method.networks["generator"].generator(torch.cat([z, *normal])[None])[0]


def classify(method: Method, x: Tensor) -> list[Tensor]:
    """Probabilities of each label."""
    logits = method.networks["classifier"](x[None]).classes[0]
    return [torch.exp(logits[b:e]) / torch.exp(logits[b:e]).sum() for b, e in ENDS]


def value(name: str, method: Method, x: Tensor, c: Tensor) -> list[Tensor]:
    """The adversarial values of one sample: a·c of each label for CGPGAN, else the one."""
    a = method.networks["discriminator"](x[None]).adversarial[0]
    if name != "cgpgan":
        return [a[0]]
    return [sum(a[i] * c[i] for i in range(begin, end)) for begin, end in ENDS]


def entropy(method: Method, x: Tensor, c: Tensor) -> Tensor:
    parts = classify(method, x)
    return sum(-(c[b:e] * torch.log(q)).sum() for (b, e), q in zip(ENDS, parts, strict=True)) / len(SIZES)


def average(values: list[Tensor]) -> Tensor:
    return sum(values) / len(values)


def real_categories(method: Method, real: Tensor, early: bool) -> tuple[Tensor, Tensor]:
    """Reals' one-hots and the probabilities that P(C) observes, with the mean over these reals early."""
    probabilities = torch.stack([torch.cat(classify(method, x)) for x in real]).detach()
    if early:
        uniform = torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.5, 0.5], dtype=torch.float64)
        probabilities = probabilities - probabilities.mean(0) + uniform
    hots = torch.zeros_like(probabilities)
    for row, q in enumerate(probabilities):
        for begin, end in ENDS:
            hots[row, begin + int(torch.argmax(q[begin:end]))] = 1
    return hots, probabilities


def cgp_by_chain_rule(method: Method, x: Tensor, c: Tensor) -> Tensor:
    """‖∇_x mean over labels of (1 − q_k)²‖² through the Jacobian of the toy classifier, written out."""
    network = method.networks["classifier"]
    hidden = torch.tanh(network.trunk.weight @ x + network.trunk.bias)
    jacobian = network.classes.weight @ torch.diag(1 - hidden**2) @ network.trunk.weight
    gradient = torch.zeros(len(x), dtype=torch.float64)
    for (begin, end), q in zip(ENDS, classify(method, x), strict=True):
        k = int(torch.argmax(c[begin:end]))
        for j in range(end - begin):
            # d(1 − q_k)²/dlogit_j = −2 (1 − q_k) q_k (δ_jk − q_j)
            slope = -2 * (1 - q[k]) * q[k] * ((1.0 if j == k else 0.0) - q[j])
            gradient = gradient + slope * jacobian[begin + j] / len(SIZES)
    return (gradient**2).sum()


def discriminator_losses(name: str, method: Method, batch: Batch, early: bool) -> tuple[Tensor, Tensor | None]:
    """L_d and L_q."""
    reals = real_categories(method, batch.real, early)[0] if name == "cgpgan" else [None] * len(batch.real)
    losses, classifier = [], []
    for row, real in enumerate(batch.real):
        c_f = category_of(name, method, batch.draws["discriminator_category"][row]).detach()
        fake = generate(method, batch.draws["discriminator_latent"][row], c_f).detach()
        penalised, c = (fake, c_f) if name == "cgpgan" else (real, None)
        x = penalised.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(average(value(name, method, x, c)), x, create_graph=True)
        a_r, a_f = value(name, method, real, reals[row]), value(name, method, fake, c_f)
        pairs = [softplus(-r) + softplus(f) for r, f in zip(a_r, a_f, strict=True)]
        losses.append(average(pairs) + (0.4 if name == "cgpgan" else 0.7) * (slope**2).sum())
        if name != "vanilla":
            classifier.append(1.7 * entropy(method, fake, c_f))
        if name == "cgpgan":
            classifier[-1] = classifier[-1] + 2.5 * cgp_by_chain_rule(method, fake, c_f)
    return average(losses), average(classifier) if classifier else None


def generator_loss(name: str, method: Method, batch: Batch) -> Tensor:
    losses = []
    for row, z in enumerate(batch.draws["generator_latent"]):
        c = category_of(name, method, batch.draws["generator_category"][row])
        fake = generate(method, z, c)
        loss = average([softplus(-a) for a in value(name, method, fake, c)])
        losses.append(loss + 1.7 * entropy(method, fake, c) if "infogan" in name else loss)
    return average(losses)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("step", [0, 5])
def test_both_phases_are_the_papers_equations(name: str, step: int) -> None:
    method = category_method(name)
    batch = category_batch(method, step)
    (d_terms, g_terms), (d_found, g_found) = run(method, batch)
    for network in method.networks.values():
        network.requires_grad_(True)
    l_d, l_q = discriminator_losses(name, method, batch, early=step < 5)
    l_g = generator_loss(name, method, batch)
    torch.testing.assert_close(d_terms.loss, l_d if l_q is None else l_d + l_q, rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(g_terms.loss, l_g, rtol=1e-11, atol=1e-14)
    # D learns by L_d alone and Q by L_q alone; G (and Elastic's P(C)) by L_g, CGPGAN's without a classification term
    expected = slopes(method, ("discriminator",), l_d)
    if l_q is not None:
        expected |= slopes(method, ("classifier",), l_q)
    assert_same(d_found, expected)
    trained = ("generator", "prior") if name == "elastic_infogan" else ("generator",)
    assert_same(g_found, slopes(method, trained, l_g))


def test_the_classifier_moves_neither_cgpgans_generator_nor_its_discriminator() -> None:
    plain, other = category_method("cgpgan"), category_method("cgpgan")
    batch = category_batch(plain, 5)
    with torch.no_grad():
        for parameter in other.networks["classifier"].parameters():
            parameter.mul_(-2.0)
    # the same labels of the reals, another classifier
    (_, _), (d, g) = run(plain, batch)
    (_, _), (d_other, g_other) = run(other, batch)
    assert_same(g, g_other)
    for key in d:
        assert torch.equal(d[key], d_other[key]) == key.startswith("discriminator.")


def test_elastics_probabilities_feel_both_terms_of_the_generators_loss() -> None:
    method = category_method("elastic_infogan")
    _, (d_found, g_found) = run(method, category_batch(method))
    assert not any(key.startswith("prior") for key in d_found)
    gradient = g_found["prior.logit_bias"]
    assert (gradient.abs() > 1e-6).all()
    # a constant added to a label's logits changes nothing
    for begin, end in ENDS:
        assert abs(float(gradient[begin:end].sum())) < 1e-14
    _, (_, without) = run(category_method("elastic_infogan", classification_weight=1e-12), category_batch(method))
    assert (without["prior.logit_bias"] - gradient).abs().max() > 1e-4
    assert without["prior.logit_bias"].abs().max() > 1e-6


# the categorical gradient penalty


class Line(nn.Module):
    """Two labels of two categories of one number x: logits (x, 0) and (0, w·x)."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        zero = torch.zeros_like(x)
        return DiscriminatorOutput(x[:, :0], None, None, x, torch.cat([x, zero, zero, self.w * x], dim=1))


def test_the_categorical_gradient_penalty_by_hand() -> None:
    x = torch.tensor([[0.0], [math.log(3)]], dtype=torch.float64)
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)

    class OneLabel(Line):
        def forward(self, x: Tensor) -> DiscriminatorOutput:
            return super().forward(x)._replace(classes=super().forward(x).classes[:, :2])

    _, squared = classify_with_gradient(OneLabel(0.0), x, first, (2,))
    # d(1 − σ)²/dx = −2 σ (1 − σ)²: −1/4 at σ = 1/2, −3/32 at σ = 3/4
    assert squared.tolist() == pytest.approx([1 / 16, 9 / 1024], rel=1e-14)


def test_labels_are_averaged_inside_the_gradient() -> None:
    network = Line(1.0)
    x = torch.zeros(1, 1, dtype=torch.float64)
    both = torch.tensor([[1.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    _, squared = classify_with_gradient(network, x, both, (2, 2))
    # at 0 the second label's slope is w/4, opposite to the first's: ((−1 + w)/8)², 0 at w = 1
    assert float(squared.detach()) == pytest.approx(0.0, abs=1e-30)
    steep = Line(3.0)
    _, squared = classify_with_gradient(steep, x, both, (2, 2))
    assert float(squared.detach()) == pytest.approx((2 / 8) ** 2, rel=1e-14)
    squared.sum().backward()
    # d((w − 1)/8)²/dw = 2 (w − 1)/64
    assert float(steep.w.grad) == pytest.approx(4 / 64, rel=1e-14)


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[math.log(3), 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, math.log(7)]], dtype=torch.float64)
    category = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.25, 0.75, 1.0, 0.0]], dtype=torch.float64)
    # −log ¾, −log ½; −¼ log ½ − ¾ log ½, −log ⅛: the mean of four
    expected = (math.log(4 / 3) + math.log(2) + math.log(2) + math.log(8)) / 4
    assert float(cross_entropy(logits, category, (2, 2))) == pytest.approx(expected, rel=1e-14)
    assert cross_entropy(logits.bfloat16(), category.bfloat16(), (2, 2)).dtype == torch.float32


def test_without_the_penalty_the_classifier_has_its_cross_entropy() -> None:
    method = category_method("cgpgan", cgp_weight=0.0)
    batch = category_batch(method, 5)
    (terms, _), (found, _) = run(method, batch)
    assert "classifier_gradient_penalty" not in terms.measured
    for network in method.networks.values():
        network.requires_grad_(True)
    entropies = []
    for row, z in enumerate(batch.draws["discriminator_latent"]):
        c = category_of("cgpgan", method, batch.draws["discriminator_category"][row])
        entropies.append(1.7 * entropy(method, generate(method, z, c).detach(), c))
    expected = slopes(method, ("classifier",), average(entropies))
    assert_same({key: found[key] for key in expected}, expected)


# P(C)


def split(batch: Batch) -> list[Batch]:
    """The streams of a batch as micro-batches of their own."""
    return [
        batch._replace(
            real=batch.real[stream::STREAMS],
            draws={name: draw[stream::STREAMS] for name, draw in batch.draws.items()},
            streams=1,
        )
        for stream in range(STREAMS)
    ]


def test_reals_labels_in_micro_batches_are_those_of_the_whole() -> None:
    method = category_method("cgpgan")
    whole = toy_batch(method, STREAMS, 6)._replace(schedule=method.schedule(0, B))
    # the streams differ, so that a mean of one alone would be another
    whole.real[0::STREAMS] += 1.5
    whole.real[1::STREAMS] -= 1.5
    labels, observed = real_categories(method, whole.real, early=True)
    parts = prepare_batches(method, split(whole), torch.float64)
    for stream, part in enumerate(parts):
        assert torch.equal(part.kept["real_category"], labels[stream::STREAMS])
        torch.testing.assert_close(part.kept["real_probabilities"], observed[stream::STREAMS], rtol=0, atol=1e-14)
        assert not part.kept["real_probabilities"].requires_grad
    alone = torch.cat(
        [prepare_batches(method, [part], torch.float64)[0].kept["real_category"] for part in split(whole)]
    )
    assert not torch.equal(alone, torch.cat([labels[stream::STREAMS] for stream in range(STREAMS)]))
    # early the balance makes other labels than the classifier's own
    assert not torch.equal(labels, real_categories(method, whole.real, early=False)[0])


def updates(method: Method, step: int, count: int, dtype: torch.dtype) -> list[Tensor]:
    """P(C) after each of several steps on skewed reals, as the loop takes them; also the classifier's mean."""
    statistics = FusedStatistics(method.statistics, torch.device("cpu"), dtype)
    before = toy_batch(method, STREAMS, B)
    batch = before._replace(
        real=(before.real * 0.1 + 2.0).to(dtype),
        draws={name: draw.to(dtype) for name, draw in before.draws.items()},
        schedule=method.schedule(step, B),
    )
    seen = []
    for _ in range(count):
        for part in prepare_batches(method, split(batch), dtype):
            method.phases[0].train_only_owned()
            statistics.observe(method.phases[0](part).observed)
        statistics.pack(False)
        statistics.finish(torch.ones(()))
        seen.append(method.state()["category_prior"].clone())
    return [*seen, real_categories(method, batch.real, early=False)[1].mean(0)]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_early_the_probabilities_stay_uniform_whatever_the_batch(dtype: torch.dtype) -> None:
    method = category_method("cgpgan", prior_decay=0.5)
    for module in (*method.networks.values(), *method.statistics.values()):
        module.to(dtype)
    uniform = torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.5, 0.5], dtype=dtype)
    method.statistics["category_prior"].probabilities.copy_(uniform)
    *seen, mean = updates(method, 4, 30, dtype)
    # the batch is far from uniform, and would show at once
    assert (mean - uniform).abs().max() > 0.1
    for prior in seen:
        assert (prior - uniform).abs().max() <= 1e-6


def test_later_the_probabilities_follow_the_classifiers_mean() -> None:
    method = category_method("cgpgan", prior_decay=0.9)
    first, second, mean = updates(method, 5, 2, torch.float64)
    torch.testing.assert_close(first, 0.9 * PRIOR + 0.1 * mean, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(second, 0.81 * PRIOR + 0.19 * mean, rtol=1e-12, atol=1e-14)


def test_fixed_probabilities_stay_and_are_those_of_the_setting() -> None:
    chosen = [0.1, 0.2, 0.7, 0.4, 0.6]
    for name in ("vanilla", "categorical_infogan"):
        method = toy_method(name, SIZES, category_probabilities=chosen)
        torch.testing.assert_close(method.state()["category_prior"], torch.tensor(chosen).double())
        (d_terms, g_terms), _ = run(method, category_batch(method))
        assert d_terms.observed == g_terms.observed == {}
    assert "category_prior" not in toy_method("vanilla").state()
    for name in ("cagan", "acgan"):
        method = toy_method(name, SIZES, category_probabilities=chosen)
        batch = toy_batch(method, STREAMS, B)
        torch.testing.assert_close(batch.state["category_prior"], torch.tensor(chosen).double())
        # a uniform of .25 lies in the second of .1, .2, .7, and in the first of .4, .6
        batch.draws["generator_category"][:] = 0.25
        drawn = drawn_category(batch, "generator_category", SIZES)
        assert drawn.tolist() == [[0, 1, 0, 1, 0]] * (STREAMS * B)


@pytest.mark.parametrize("name", ["vanilla", "cagan"])
@pytest.mark.parametrize("wrong", [[0.5, 0.5], [0.5, 0.4, 0.0, 0.5, 0.5], [0.2, 0.2, 0.6, 0.5, 0.5, 0.0]])
def test_fixed_probabilities_that_are_none_are_refused_before_anything_is_built(name: str, wrong: list[float]) -> None:
    settings = METHODS[name].Settings(category_probabilities=wrong)  # type: ignore[call-arg]
    network = NetworkSettings(family="mlp", widths=[4])
    with pytest.raises(UserError, match=r"method\.category_probabilities"):
        METHODS[name].build_networks(settings, network, ModelSpec((2,), D_Z, SIZES))


def test_elastics_probabilities_have_their_own_rate_no_decay_and_sleep_until_they_start() -> None:
    method = category_method("elastic_infogan", prior_learning_rate=3e-3)
    phase = method.phases[1]
    groups = phase.parameter_groups()
    assert [id(p) for p in groups[1].parameters] == [id(method.networks["prior"].logit_bias)]
    assert groups[1][1:] == (3e-3, 0.0)
    assert groups[0][1:] == (None, None)
    assert {id(p) for group in groups for p in group.parameters} == {id(p) for p in phase.parameters()}
    assert [id(p) for p in phase.freezable()] == [id(p) for p in groups[1].parameters]
    assert [phase.frozen_this_step(method.schedule(step, B)) for step in (0, 4, 5, 6)] == [True, True, False, False]
    # uniform when built
    built = METHODS["elastic_infogan"].build_networks(
        method.settings, NetworkSettings(family="mlp", widths=[4]), ModelSpec((2,), D_Z, SIZES)
    )
    torch.testing.assert_close(built["prior"].probabilities(), torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.5, 0.5]))


def test_elastics_noise_is_gumbel_of_its_own_draws() -> None:
    draws = category_method("elastic_infogan").draws()
    purposes = {name: (draw.purpose, draw.size) for name, draw in draws.items() if name.endswith("category")}
    assert purposes == {
        "discriminator_category": (Purpose.DISCRIMINATOR_NOISE, 5),
        "generator_category": (Purpose.GENERATOR_NOISE, 5),
    }
    noise = draws["generator_category"].quantile(
        torch.tensor([math.exp(-1), 2.0**-53, 1 - 2.0**-53], dtype=torch.float64)
    )
    # P(G ≤ g) = exp(−exp(−g))
    assert noise.tolist() == pytest.approx([0.0, -math.log(53 * math.log(2)), 53 * math.log(2)], abs=1e-12)


# how phases run


@pytest.mark.parametrize("name", NAMES)
def test_streams_together_are_streams_apart(name: str) -> None:
    method = category_method(name)
    whole = toy_batch(method, STREAMS, B)._replace(schedule=method.schedule(0, B))
    together, gradients = run(method, prepare_batches(method, [whole], torch.float64)[0])
    apart = [run(method, part) for part in prepare_batches(method, split(whole), torch.float64)]
    for index in range(2):
        mean = sum(part[0][index].loss for part in apart) / STREAMS
        torch.testing.assert_close(together[index].loss, mean, rtol=1e-12, atol=1e-14)
        expected = {key: sum(part[1][index][key] for part in apart) / STREAMS for key in gradients[index]}
        assert_same(gradients[index], expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_phase_compiles_whole_and_gives_the_same_numbers(name: str) -> None:
    method = category_method(name)
    assert_compiles(method, category_batch(method))


@pytest.mark.parametrize("name", NAMES)
def test_under_bf16_every_loss_is_taken_in_float32(name: str) -> None:
    method = category_method(name)
    for module in (*method.networks.values(), *method.statistics.values()):
        module.float()
    batch = toy_batch(method, STREAMS, B)
    batch = batch._replace(
        real=batch.real.float(),
        draws={key: draw.float() for key, draw in batch.draws.items()},
        schedule=method.schedule(0, B),
    )
    batch = prepare_batches(method, [batch], torch.float32)[0]
    for phase in method.phases:
        phase.train_only_owned()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = phase(batch)
        assert {each.dtype for each in (terms.loss, *terms.measured.values())} == {torch.float32}


@pytest.mark.parametrize("name", NAMES)
def test_built_networks_train_every_parameter(name: str) -> None:
    """The networks as a run builds them: none unreached, none shared, Q with class logits alone."""
    from latentscale.latents.priors import make_prior
    from latentscale.networks.initialisation import initialize

    kind, spec = METHODS[name], ModelSpec((2,), D_Z, SIZES)
    settings = kind.Settings(**WEIGHTS[name])  # type: ignore[arg-type]
    networks = kind.build_networks(settings, NetworkSettings(family="mlp", widths=[6, 6]), spec)
    for key, network in networks.items():
        initialize(network, 3, key)
        network.double()
    method = kind(settings, networks, make_prior("normal"), spec)
    for statistic in method.statistics.values():
        statistic.double()
    batch = toy_batch(method, STREAMS, B)
    batch = batch._replace(real=batch.real[:, :2], schedule=method.schedule(0, B))
    batch = prepare_batches(method, [batch], torch.float64)[0]
    _, found = run(method, batch)
    owned = [[key for key in networks if key in dict(phase.named_children())] for phase in method.phases]
    for names, gradients in zip(owned, found, strict=True):
        assert set(gradients) == {f"{key}.{p}" for key in names for p, _ in networks[key].named_parameters()}
    pointers = [p.data_ptr() for network in networks.values() for p in network.parameters()]
    assert len(set(pointers)) == len(pointers)
    if "classifier" in networks:
        assert networks["classifier"](batch.real).adversarial.shape == (STREAMS * B, 0)
