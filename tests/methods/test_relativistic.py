"""The relativistic pairing loss (Huang et al. 2024) with every adversarial method, against loops over pairs in float64.

What it changes is the adversarial term alone. So a step with it, less the same step with the non-saturating loss (which
each method's own tests write out), must be the difference of the two terms written out here, in value and gradients.
"""

from collections.abc import Callable

import pytest
import test_aedlsgan
import test_equations
import test_invgan
import test_labelled
import test_mixed_batches as mixed
import test_unlabelled_categories as unlabelled
import test_vaegan
import torch
from steps import Gradients, assert_compiles, assert_losses_in_float32, assert_same, assert_streams_apart, run
from torch import Tensor, nn
from toys import toy_batch, toy_method

from latentscale.errors import UserError
from latentscale.losses.adversarial import ADVERSARIAL
from latentscale.methods.base import Method
from latentscale.methods.mixing import MixingSettings, mixed_samples
from latentscale.methods.phase import Batch
from latentscale.methods.registry import METHODS
from latentscale.training.step import prepare_batches

STREAMS, B = 2, 4
SIZES = (3, 2)
PLAIN = ("vanilla", "msegan", "infogan", "dlsgan", "pvdgan")
UNLABELLED = ("categorical_infogan", "elastic_infogan", "cgpgan")
RUNS: dict[str, tuple[str, dict[str, object]]] = {
    **{name: (name, {}) for name in (*PLAIN, "aedlsgan", "acgan", "cagan", *UNLABELLED, "vaegan")},
    **{f"invgan {variant}": ("invgan", {"variant": variant}) for variant in ("naive", "augmented", "full")},
}
WITHOUT_ADVERSARY = ("autoencoder", "classifier", "posthoc_encoder")


def test_every_method_is_here_or_refuses_the_loss_or_has_another_one() -> None:
    listed = {name for name, _ in RUNS.values()} | set(WITHOUT_ADVERSARY)
    for name in METHODS.keys() - listed:
        method = toy_method(name)
        results, _ = run(method, toy_batch(method, STREAMS, B))
        assert "adversarial" not in results[-1].measured, (
            f"add {name} to PLAIN, or say below what its fakes and categories are: its adversarial terms are compared"
            " with their equations here"
        )


def made(title: str, adversarial: str = "relativistic", **settings: object) -> Method:
    name, variant = RUNS[title]
    chosen = {"r1": 0.7, "r2": 0.3, "adversarial": adversarial, **variant, **settings}
    if name in UNLABELLED:
        return unlabelled.category_method(name, **chosen)
    if name == "aedlsgan":
        return test_aedlsgan.make(SIZES, **chosen)
    return toy_method(name, SIZES if name in ("acgan", "cagan") else (), **chosen)


def batch_of(method: Method) -> Batch:
    """A batch of the first step, prepared as the loop does."""
    batch = toy_batch(method, STREAMS, B)._replace(schedule=method.schedule(0, B))
    return prepare_batches(method, [batch], torch.float64)[0]


# fakes, reals and D's values, one sample at a time


def fake_of(title: str, method: Method, batch: Batch, phase: str, row: int) -> tuple[Tensor, object]:
    """The fake of a row with the graph that the adversarial term has to its phase's networks, and its categories."""
    name, variant = RUNS[title][0], RUNS[title][1].get("variant")
    z, real, sample = batch.draws[f"{phase}_latent"][row], batch.real[row], row // STREAMS
    # VAEGAN's and InvGAN's fakes of reals: of the last half in D's phase, of the first half in G's
    of_real = sample >= B // 2 if phase == "discriminator" else sample < B // 2
    if name in ("acgan", "cagan"):
        labels = test_labelled.fake_labels(batch, phase, row, SIZES)
        return test_labelled.generate(method, z, labels, SIZES), labels
    if name in UNLABELLED:
        c = unlabelled.category_of(name, method, batch.draws[f"{phase}_category"][row])
        return unlabelled.generate(method, z, c), c
    if name == "aedlsgan":
        return test_aedlsgan.generate(method, z), test_aedlsgan.category(method, z, SIZES)
    if name == "vaegan":
        return test_vaegan.generate(method, test_vaegan.latent(method, real, z).detach() if of_real else z), None
    if name == "invgan":
        from_real = of_real and variant != "naive"
        w = test_invgan.code(method, real).detach() if from_real else test_invgan.mapped(method, z)
        return test_invgan.generate(method, w), None
    if name == "pvdgan" and phase == "generator" and sample < B // 2:
        z_r = method.networks["discriminator"](real[None]).latent[0].detach()
        z = z_r + z * torch.sqrt(torch.clamp(1 - test_equations.V, min=0))
    return test_equations.generate(name, method, z), None


def real_categories(title: str, method: Method, batch: Batch) -> list[object]:
    name = RUNS[title][0]
    if name == "cgpgan":
        return list(unlabelled.real_categories(method, batch.real, early=True)[0])
    return batch.labels.tolist() if batch.labels is not None else [None] * len(batch.real)


def values(title: str, method: Method, x: Tensor, category: object) -> list[Tensor]:
    """What D says of one sample, one value per label."""
    name = RUNS[title][0]
    if name in ("acgan", "cagan"):
        return test_labelled.values(name, method, x, category, SIZES)  # type: ignore[arg-type]
    if name == "aedlsgan":
        return test_aedlsgan.active(method, x, category, SIZES)  # type: ignore[arg-type]
    if name in UNLABELLED:
        return unlabelled.value(name, method, x, category)  # type: ignore[arg-type]
    return [method.networks["discriminator"](x[None]).adversarial[0, 0]]


def softplus(x: Tensor) -> Tensor:
    return torch.log1p(torch.exp(x))


def term(title: str, method: Method, batch: Batch, phase: str, relativistic: bool) -> Tensor:
    """The adversarial term of a phase: the fake of each row is paired with the real of that row, label by label."""
    losses = []
    for row, c_r in enumerate(real_categories(title, method, batch)):
        image, c_f = fake_of(title, method, batch, phase, row)
        image = image.detach() if phase == "discriminator" else image
        pairs = zip(
            values(title, method, batch.real[row], c_r), values(title, method, image, c_f), strict=True
        )  # one per label
        each = []
        for a_r, a_f in pairs:
            if phase == "discriminator":
                each.append(softplus(-(a_r - a_f)) if relativistic else softplus(-a_r) + softplus(a_f))
            else:
                each.append(softplus(-(a_f - a_r)) if relativistic else softplus(-a_f))
        losses.append(sum(each) / len(each))
    return sum(losses) / len(losses)


def gradients(method: Method, names: tuple[str, ...], loss: Callable[[], Tensor]) -> tuple[Tensor, Gradients]:
    for network in method.networks.values():
        network.requires_grad_(True)
    value = loss()
    named = {f"{name}.{key}": p for name in names for key, p in method.networks[name].named_parameters()}
    slopes = torch.autograd.grad(value, list(named.values()), allow_unused=True)
    return value, {
        key: torch.zeros_like(p) if g is None else g for (key, p), g in zip(named.items(), slopes, strict=True)
    }


@pytest.mark.parametrize("title", RUNS)
def test_both_phases_pair_sample_by_sample(title: str) -> None:
    method, other = made(title), made(title, "nonsaturating")
    batch = batch_of(method)
    results, found = run(method, batch)
    others, other_found = run(other, batch_of(other))
    for index, phase in enumerate(("discriminator", "generator")):
        names = tuple(name for name, _ in method.phases[index].named_children())
        value, expected = gradients(
            method,
            names,
            lambda: term(title, method, batch, phase, True) - term(title, method, batch, phase, False),  # noqa: B023
        )
        torch.testing.assert_close(results[index].loss - others[index].loss, value, rtol=1e-10, atol=1e-13)
        assert found[index].keys() == other_found[index].keys() == expected.keys()
        for key in expected:
            torch.testing.assert_close(
                found[index][key] - other_found[index][key], expected[key], rtol=1e-8, atol=1e-12
            )
        assert value.abs() > 1e-3
        # the term as it is reported, not only its difference
        own = term(title, method, batch, phase, True)
        torch.testing.assert_close(results[index].measured["adversarial"], own.detach(), rtol=1e-11, atol=1e-14)
        # everything else is measured, observed and kept alike
        assert_equal(without_adversarial(results[index].measured), without_adversarial(others[index].measured))
        assert_equal(results[index].observed, others[index].observed)
        assert_equal(results[index].kept, others[index].kept)


def without_adversarial(measured: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in measured.items() if name != "adversarial"}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same names, and bit for bit the same values."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("title", RUNS)
def test_streams_together_are_streams_apart(title: str) -> None:
    method = made(title)
    if "cgpgan" in title:
        # the labels of the reals depend on the whole batch early, and are its own afterwards
        method.settings.prior_start_step = 0
        whole = toy_batch(method, STREAMS, B)._replace(schedule=method.schedule(0, B))
        together, slopes = run(method, prepare_batches(method, [whole], torch.float64)[0])
        apart = [run(method, part) for part in prepare_batches(method, unlabelled.split(whole), torch.float64)]
        for index in range(2):
            mean = sum(part[0][index].loss for part in apart) / STREAMS
            torch.testing.assert_close(together[index].loss, mean, rtol=1e-12, atol=1e-14)
            expected = {key: sum(part[1][index][key] for part in apart) / STREAMS for key in slopes[index]}
            assert_same(slopes[index], expected)
        return
    assert_streams_apart(method, batch_of(method))


@pytest.mark.slow
@pytest.mark.parametrize("title", RUNS)
def test_both_phases_compile_whole(title: str) -> None:
    method = made(title)
    assert_compiles(method, batch_of(method))


@pytest.mark.parametrize("title", RUNS)
def test_under_bf16_every_loss_is_taken_in_float32(title: str) -> None:
    method = made(title)
    assert_losses_in_float32(method, batch_of(method))


# what it costs


def passes_of_d(method: Method, batch: Batch) -> list[int]:
    """D's forward passes of each phase."""
    counted: list[int] = []
    hook = method.networks["discriminator"].register_forward_pre_hook(lambda module, given: counted.append(1))
    found = []
    for phase in method.phases:
        phase.train_only_owned()
        counted.clear()
        terms = phase(batch)
        found.append(len(counted))
        batch = batch._replace(kept={**batch.kept, **terms.kept})
    hook.remove()
    return found


@pytest.mark.parametrize("title", RUNS)
@pytest.mark.parametrize("adversarial", ADVERSARIAL)
def test_the_generators_phase_alone_takes_one_more_pass_and_other_losses_none(title: str, adversarial: str) -> None:
    method = made(title, adversarial)
    # full InvGAN: reals and fakes, G(w_R) with and without F frozen, and the second cycle; in G's phase the latter
    expected = [5, 2] if title == "invgan full" else [2, 1]
    expected[1] += adversarial == "relativistic"
    assert passes_of_d(method, batch_of(method)) == expected


def test_the_reals_are_passed_without_a_graph() -> None:
    method = made("pvdgan")
    batch = batch_of(method)
    seen: list[bool] = []

    class Watched(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> object:
            if torch.equal(x, batch.real):
                seen.append(torch.is_grad_enabled())
            return self.network(x)

    networks = {**method.networks, "discriminator": Watched(method.networks["discriminator"])}
    watched = type(method)(method.settings, networks, method.prior, method.spec)
    watched.statistics = method.statistics
    run(watched, batch)
    assert seen == [True, False]


# mixed batches


def paired_losses(name: str, method: Method, batch: Batch, phase: str, frozen_reals: bool = False) -> Tensor:
    """A phase's loss where every batch is half real and half fake: the k-th real of A with the k-th fake of A."""
    count, half, total = len(batch.real), mixed.B // 2, 0.0
    for stream in range(STREAMS):
        rows = range(stream, count, STREAMS)
        real = [(batch.real[i], batch.labels[i].tolist()) for i in rows]
        fake = []
        for i in rows:
            labels = test_labelled.fake_labels(batch, phase, i, mixed.SIZES)
            image = test_labelled.generate(method, batch.draws[f"{phase}_latent"][i], labels, mixed.SIZES)
            fake.append((image.detach() if phase == "discriminator" else image, labels))
        # A holds its reals first, B its fakes
        for reals_first, members in ((True, real[:half] + fake[half:]), (False, fake[:half] + real[half:])):
            x = torch.stack([image for image, _ in members])
            x = x.detach().requires_grad_(True) if phase == "discriminator" else x
            a, q = mixed.heads_by_hand(method, x)
            own = [
                [a[k, 0]] if name == "acgan" else [a[k, labels[0]], a[k, mixed.SIZES[0] + labels[1]]]
                for k, (_, labels) in enumerate(members)
            ]
            for k in range(half):
                reals, fakes = (own[k], own[half + k]) if reals_first else (own[half + k], own[k])
                for a_r, a_f in zip(reals, fakes, strict=True):
                    a_r = a_r.detach() if frozen_reals else a_r
                    margin = a_r - a_f if phase == "discriminator" else a_f - a_r
                    total = total + softplus(-margin) / len(reals)
            if phase == "discriminator":
                means = sum(sum(each) / len(each) for each in own)
                (slopes,) = torch.autograd.grad(means, x, create_graph=True)
                for k, slope in enumerate(slopes):
                    total = total + (0.7 if (k < half) == reals_first else 0.3) * (slope**2).sum()
            for k, (_, labels) in enumerate(members):
                is_fake = (k < half) != reals_first
                if name == "acgan" and (phase == "discriminator" or is_fake):
                    logs = [q[k, :3].log_softmax(0)[labels[0]], q[k, 3:].log_softmax(0)[labels[1]]]
                    total = total - sum(logs) / 2
    return total / count


@pytest.mark.parametrize("name", ["cagan", "acgan"])
def test_half_and_half_batches_pair_within_each(name: str) -> None:
    method = mixed.make(name, adversarial="relativistic")
    batch = mixed.batch_with(method, 0.5)
    results, found = run(method, batch)
    for index, phase in enumerate(("discriminator", "generator")):
        loss, expected = gradients(method, (phase,), lambda: paired_losses(name, method, batch, phase))  # noqa: B023
        torch.testing.assert_close(results[index].loss, loss, rtol=1e-11, atol=1e-14)
        assert found[index].keys() == expected.keys()
        for key in expected:
            torch.testing.assert_close(found[index][key], expected[key], rtol=1e-9, atol=1e-12)
    # through the layer that sees the batch, D's values of the reals depend on the fakes beside them
    _, without = gradients(method, ("generator",), lambda: paired_losses(name, method, batch, "generator", True))
    assert max((found[1][key] - without[key]).abs().max() for key in without) > 1e-5


@pytest.mark.parametrize("name", ["cagan", "acgan"])
@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_mixed_batches_need_no_further_pass(name: str, ratio: float) -> None:
    method = mixed.make(name, adversarial="relativistic")
    batch = mixed.batch_with(method, ratio)
    assert passes_of_d(method, batch) == [2, 2]
    mixed_streams = [run(method, batch._replace(**part)) for part in one_stream_each(batch)]
    together = run(method, batch)
    for index in range(2):
        mean = sum(results[index].loss for results, _ in mixed_streams) / STREAMS
        torch.testing.assert_close(together[0][index].loss, mean, rtol=1e-12, atol=1e-14)


def one_stream_each(batch: Batch) -> list[dict[str, object]]:
    return [
        {
            "real": batch.real[stream::STREAMS],
            "labels": batch.labels[stream::STREAMS],
            "draws": {name: draw[stream::STREAMS] for name, draw in batch.draws.items()},
            "streams": 1,
        }
        for stream in range(STREAMS)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cagan", "acgan"])
def test_mixed_phases_compile_whole(name: str) -> None:
    method = mixed.make(name, adversarial="relativistic")
    assert_compiles(method, mixed.batch_with(method, 0.5))


# what is refused


@pytest.mark.parametrize("most", [0.5, 0.25, 0.05])
@pytest.mark.parametrize("rate", [0.0, 1e-300, 0.005, 0.1, 0.25, 0.5, 3.0])
@pytest.mark.parametrize("stream_batch", [1, 2, 3, 8, 100])
def test_schedules_that_leave_samples_without_a_partner_are_refused(
    rate: float, most: float, stream_batch: int
) -> None:
    settings = MixingSettings(adversarial="relativistic", mix_rate=rate, mix_most=most, mix_epoch_steps=10)
    # every count of mixed samples that the schedule comes by, its end included
    epochs = [*range(300), 10**6, 10**301] if rate else [0]
    counts = {mixed_samples(min(rate * epoch, most), stream_batch) for epoch in epochs}
    if rate == 1e-300 and mixed_samples(most, stream_batch):
        counts.add(1)  # a ratio that grows by so little comes by every count
    unequal = any(count and 2 * count != stream_batch for count in counts)
    for name in ("cagan", "acgan"):
        kind = METHODS[name]
        chosen = kind.Settings(**vars(settings))
        if unequal:
            with pytest.raises(UserError, match=r"method\.adversarial=relativistic .*method\.mix_rate") as refused:
                kind.validate(chosen, "normal", stream_batch)
            assert "\n" not in str(refused.value)
        else:
            kind.validate(chosen, "normal", stream_batch)
        kind.validate(kind.Settings(**{**vars(settings), "adversarial": "hinge"}), "normal", stream_batch)


@pytest.mark.parametrize("name", WITHOUT_ADVERSARY)
def test_methods_without_an_adversary_refuse_it(name: str) -> None:
    kind = METHODS[name]
    for adversarial in set(ADVERSARIAL) - {"relativistic"}:
        kind.validate(kind.Settings(adversarial=adversarial), "normal", 4)
    with pytest.raises(UserError, match=rf"method\.adversarial=relativistic: {name} ") as refused:
        kind.validate(kind.Settings(adversarial="relativistic"), "normal", 4)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["dlsgan", "cgpgan", "elastic_infogan"])
def test_it_is_meant_with_both_penalties(name: str) -> None:
    kind = METHODS[name]

    def remarks(**settings: object) -> list[str]:
        return [line for line in kind.remarks(kind.Settings(**settings), 100_000) if "adversarial" in line]

    (remark,) = remarks(adversarial="relativistic", r1=1.0, r2=0.0)
    assert remark.endswith("set method.r1 and method.r2 above 0")
    assert not remarks(adversarial="relativistic", r1=1.0, r2=1.0)
    assert not remarks(adversarial="hinge", r1=0.0, r2=0.0)
