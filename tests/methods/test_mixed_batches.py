"""Mixed batch training (Cho 2025, §3.1.1, 4.1.2) with a batch-wise D, in both phases, against batches made by hand."""

import math

import pytest
import torch
from steps import run
from steps import value_by_hand as by_hand
from test_equations import softplus
from test_labelled import fake_labels, generate
from torch import Tensor, nn
from toys import DATA, toy_batch, toy_method

from latentscale.methods.base import Method
from latentscale.methods.mixing import MixingSettings, mixed_rows, mixed_samples
from latentscale.methods.passes import discriminate
from latentscale.methods.phase import Batch
from latentscale.networks.factory import NetworkSettings, build_discriminator
from latentscale.networks.initialisation import initialize

SIZES = (3, 2)
STREAMS, B = 2, 6
CASES = [("cagan", 0.7, 0.3), ("cagan", 0.7, 0.0), ("cagan", 0.0, 0.3), ("cagan", 0.0, 0.0), ("acgan", 0.7, 0.3)]


def make(name: str, r1: float = 0.7, r2: float = 0.3, **settings: object) -> Method:
    """A toy method whose D is a real mlp with the minibatch standard deviation."""
    method = toy_method(name, SIZES, r1=r1, r2=r2, **settings)
    network = NetworkSettings(family="mlp", widths=[4], extra_width=5, minibatch_deviation=True)
    discriminator = build_discriminator(network, 3, (DATA,), method.heads(method.spec)).double()
    initialize(discriminator, 7, "discriminator")
    players = {"generator": method.networks["generator"], "discriminator": discriminator}
    made = type(method)(method.settings, players, method.prior, method.spec)
    made.statistics["category_prior"].double()
    return made


def batch_with(method: Method, ratio: float | None, streams: int = STREAMS, stream_batch: int = B) -> Batch:
    batch = toy_batch(method, streams, stream_batch)
    return batch if ratio is None else batch._replace(schedule={"mixed_samples": mixed_samples(ratio, stream_batch)})


class Recorder(nn.Module):
    """D that remembers what it is shown."""

    batchwise = True

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.seen: list[tuple[Tensor, int]] = []

    def forward(self, x: Tensor, streams: int = 1):
        self.seen.append((x.detach().clone(), streams))
        return self.discriminator(x, streams=streams)


def shown(ratio: float, stream_batch: int = B) -> tuple[Batch, list[list[tuple[Tensor, int]]]]:
    """What D sees in each phase: reals are marked by a first coordinate above 100."""
    method = make("cagan")
    recorder = Recorder(method.networks["discriminator"])
    recorded = type(method)(method.settings, {**method.networks, "discriminator": recorder}, method.prior, method.spec)
    recorded.statistics["category_prior"].double()
    batch = batch_with(recorded, ratio, stream_batch=stream_batch)
    real = batch.real.clone()
    real[:, 0] = 100.0 + torch.arange(len(real))
    batch = batch._replace(real=real)
    seen = []
    for phase in recorded.phases:
        recorder.seen.clear()
        phase.train_only_owned()
        phase(batch)
        seen.append(list(recorder.seen))
    return batch, seen


def is_real(x: Tensor) -> Tensor:
    return x[:, 0] > 99


@pytest.mark.parametrize("ratio", [0.0, 0.16])  # ⌊0.16 · 6⌋ = 0
def test_without_mixing_batches_are_all_real_and_all_fake(ratio: float) -> None:
    batch, (d_seen, g_seen) = shown(ratio)
    (reals, _), (fakes, _) = d_seen
    assert torch.equal(reals, batch.real)
    assert not is_real(fakes).any()
    ((images, streams),) = g_seen
    assert not is_real(images).any()
    assert streams == STREAMS


@pytest.mark.parametrize(("ratio", "first"), [(0.5, 3), (0.2, 1), (0.34, 2)])
def test_mixed_batches_hold_the_first_reals_and_the_last_fakes_and_the_reverse(ratio: float, first: int) -> None:
    batch, phases = shown(ratio)
    for (a, a_streams), (b, b_streams) in phases:
        assert a_streams == b_streams == STREAMS
        for stream in range(STREAMS):
            real = batch.real[stream::STREAMS]
            in_a, in_b = is_real(a[stream::STREAMS]), is_real(b[stream::STREAMS])
            assert in_a.tolist() == [row < first for row in range(B)]
            assert in_b.tolist() == [row >= first for row in range(B)]
            if ratio == 0.5:
                assert in_a.sum() == in_b.sum() == B / 2
            # every real once, each in its own place, and so every fake
            assert torch.equal(a[stream::STREAMS][:first], real[:first])
            assert torch.equal(b[stream::STREAMS][first:], real[first:])
    (d_a, _), (d_b, _) = phases[0]
    (g_a, _), (g_b, _) = phases[1]
    for a, b in ((d_a, d_b), (g_a, g_b)):
        fakes = torch.cat([b[: first * STREAMS], a[first * STREAMS :]])
        assert len(torch.unique(fakes, dim=0)) == STREAMS * B
    assert not torch.equal(d_b[: first * STREAMS], g_b[: first * STREAMS])  # the generator's fakes are fresh


def plain_discriminator_passes(settings, discriminator, images, c_r, c_f, batch, value):
    real = discriminate(discriminator, batch.real, batch, settings.r1, value(c_r))
    return real, discriminate(discriminator, images, batch, settings.r2, value(c_f))


def plain_generator_passes(settings, discriminator, images, batch, real_value, fake_value):
    return None, discriminate(discriminator, images, batch, value=fake_value)


@pytest.mark.parametrize("name", ["cagan", "acgan"])
@pytest.mark.parametrize("ratio", [0.0, 0.16])
def test_a_ratio_of_nothing_is_plain_training_bitwise(name: str, ratio: float, monkeypatch: pytest.MonkeyPatch) -> None:
    method = make(name)
    mixed = run(method, batch_with(method, ratio))
    half = run(method, batch_with(method, 0.5))
    # plain training: phases that know no mixing
    monkeypatch.setattr(f"latentscale.methods.{name}.discriminator_passes", plain_discriminator_passes)
    monkeypatch.setattr(f"latentscale.methods.{name}.generator_passes", plain_generator_passes)
    plain = run(method, batch_with(method, None))
    for index in range(2):
        assert torch.equal(mixed[0][index].loss, plain[0][index].loss)
        assert mixed[1][index].keys() == plain[1][index].keys()
        for key, gradient in plain[1][index].items():
            assert torch.equal(mixed[1][index][key], gradient)
        # the control: half and half is another step
        assert (half[0][index].loss - plain[0][index].loss).abs() > 1e-6


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def heads_by_hand(method: Method, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """D on one stream's batch ``[b, DATA]``, layer by layer."""
    d = method.networks["discriminator"]
    (dense,) = d.layers
    h = leaky(x @ dense.weight.T / math.sqrt(DATA) + dense.bias)
    std = (((h - h.mean(0)) ** 2).mean(0) + 1e-8).sqrt()
    f, s = (h @ d.deviation.features.weight.T / 2, std @ d.deviation.deviation.weight.T / 2)
    y = leaky((f + s) / math.sqrt(2) + d.deviation.bias)
    a, q = (
        None if head is None else y @ head.weight.T / math.sqrt(5) + head.bias
        for head in (d.heads.adversarial, d.heads.classes)
    )
    return a, q


def losses(name: str, method: Method, batch: Batch, first: int, phase: str, r1: float, r2: float) -> Tensor:
    """A phase's loss: the two batches of every stream one after the other, then sample by sample."""
    count, total = len(batch.real), 0.0
    for stream in range(STREAMS):
        rows = range(stream, count, STREAMS)
        real = [(batch.real[i], batch.labels[i].tolist(), True) for i in rows]
        fake = []
        for i in rows:
            labels = fake_labels(batch, phase, i, SIZES)
            image = generate(method, batch.draws[f"{phase}_latent"][i], labels, SIZES)
            fake.append((image.detach() if phase == "discriminator" else image, labels, False))
        for members in (real[:first] + fake[first:], fake[:first] + real[first:]):
            x = torch.stack([image for image, _, _ in members])
            if phase == "discriminator":
                x = x.detach().requires_grad_(True)
            a, q = heads_by_hand(method, x)
            values = []
            for k, (_, labels, _) in enumerate(members):
                own = [a[k, 0]] if name == "acgan" else [a[k, labels[0]], a[k, SIZES[0] + labels[1]]]
                values.append(own)
            if phase == "discriminator" and (r1 or r2):
                means = sum(sum(own) / len(own) for own in values)
                (slopes,) = torch.autograd.grad(means, x, create_graph=True)
            for k, (_, labels, is_a_real) in enumerate(members):
                own = values[k]
                if phase == "discriminator":
                    total = total + sum(softplus(-v) if is_a_real else softplus(v) for v in own) / len(own)
                    weight = r1 if is_a_real else r2
                    total = total + (weight * (slopes[k] ** 2).sum() if weight else 0.0)
                elif not is_a_real:
                    total = total + sum(softplus(-v) for v in own) / len(own)
                if name == "acgan" and (phase == "discriminator" or not is_a_real):
                    logs = [q[k, :3].log_softmax(0)[labels[0]], q[k, 3:].log_softmax(0)[labels[1]]]
                    total = total - sum(logs) / 2
    return total / count


@pytest.mark.parametrize(("ratio", "first"), [(0.0, 0), (0.34, 2), (0.5, 3)])
@pytest.mark.parametrize(("name", "r1", "r2"), CASES)
def test_both_phases_by_hand(name: str, r1: float, r2: float, ratio: float, first: int) -> None:
    method = make(name, r1, r2)
    batch = batch_with(method, ratio)
    results, found = run(method, batch)
    for terms, gradients, phase in zip(results, found, ("discriminator", "generator"), strict=True):
        loss, slopes = by_hand(method, phase, lambda: losses(name, method, batch, first, phase, r1, r2))  # noqa: B023
        torch.testing.assert_close(terms.loss, loss, rtol=1e-11, atol=1e-14)
        assert (
            gradients.keys() == slopes.keys() == {f"{phase}.{k}" for k, _ in method.networks[phase].named_parameters()}
        )
        for key in slopes:
            torch.testing.assert_close(gradients[key], slopes[key], rtol=1e-9, atol=1e-12)
    assert set(results[0].measured) & {"r1", "r2"} == {name for name, weight in (("r1", r1), ("r2", r2)) if weight}


@pytest.mark.parametrize("ratio", [0.0, 0.34, 0.5])
@pytest.mark.parametrize("name", ["cagan", "acgan"])
def test_streams_together_are_streams_apart(name: str, ratio: float) -> None:
    method = make(name)
    whole = batch_with(method, ratio)
    together, slopes = run(method, whole)
    parts = []
    for stream in range(STREAMS):
        rows = slice(stream, None, STREAMS)
        draws = {key: value[rows] for key, value in whole.draws.items()}
        one = whole._replace(real=whole.real[rows], labels=whole.labels[rows], draws=draws, streams=1)
        parts.append(run(method, one))
    for index, terms in enumerate(together):
        mean = sum(part[0][index].loss for part in parts) / STREAMS
        torch.testing.assert_close(terms.loss, mean, rtol=1e-12, atol=1e-14)
        for key, gradient in slopes[index].items():
            average = sum(part[1][index][key] for part in parts) / STREAMS
            torch.testing.assert_close(gradient, average, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("stream_batch", "streams", "ratio", "samples"),
    [
        (8, 1, 0.3, 2),
        (8, 4, 0.3, 2),
        (3, 4, 0.3, 0),  # of the whole batch it would be 3 rows
        (7, 2, 0.5, 3),
        (16, 2, 0.125, 2),
        (100, 1, 58 * 0.005, 29),
        (1, 8, 0.5, 0),
    ],
)
def test_the_floor_is_taken_within_each_stream(stream_batch: int, streams: int, ratio: float, samples: int) -> None:
    batch = batch_with(make("cagan"), ratio, streams, stream_batch)
    assert mixed_rows(batch) == samples * streams


def test_the_schedule() -> None:
    # Cho 2025, §4.1.2: 0.005 an epoch of 1000 steps up to one half, from epoch 100 on
    settings = MixingSettings(mix_rate=0.005)
    expected = {0: 0.0, 999: 0.0, 1000: 0.005, 1999: 0.005, 50_000: 0.25, 99_999: 0.495, 100_000: 0.5, 10**6: 0.5}
    for step, ratio in expected.items():
        assert settings.mixing_ratio(step) == pytest.approx(ratio, abs=1e-15)
    assert MixingSettings().mixing_ratio(10**6) == 0.0
    assert MixingSettings(mix_rate=0.1, mix_epoch_steps=10, mix_most=0.3).mixing_ratio(1000) == 0.3
    for name in ("cagan", "acgan"):
        method = make(name, mix_rate=0.005)
        assert method.schedule(50_000, 6) == {"mixed_samples": 1}


@pytest.mark.slow
def test_a_compiled_phase_is_not_traced_for_every_ratio() -> None:
    method = make("cagan")
    torch._dynamo.reset()
    compiled = torch.compile(method.phases[0], backend="eager", fullgraph=True)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for samples in range(17):  # more than Dynamo's limit of 8 traces
        compiled(batch_with(method, samples / 32, stream_batch=32))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before <= 4


@pytest.mark.slow
def test_phases_compile_whole_at_every_ratio() -> None:
    method = make("cagan")
    torch._dynamo.reset()
    compiled = [torch.compile(phase, backend="aot_eager", fullgraph=True) for phase in method.phases]
    for ratio in (0.0, 0.17, 0.34, 0.5):
        batch = batch_with(method, ratio)
        expected, slopes = run(method, batch)
        for index, phase in enumerate(method.phases):
            phase.train_only_owned()
            for network in method.networks.values():
                network.zero_grad()
            terms = compiled[index](batch)
            terms.loss.backward()
            torch.testing.assert_close(terms.loss, expected[index].loss, rtol=1e-12, atol=0)
            for key, parameter in phase.named_parameters():
                torch.testing.assert_close(parameter.grad, slopes[index][key], rtol=1e-10, atol=1e-13)
