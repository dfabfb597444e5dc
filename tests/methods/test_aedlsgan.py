"""AEDLSGAN against algorithm 3 written out sample by sample in float64; w, its draws, and editing to a score."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from steps import assert_compiles, assert_streams_apart, run
from steps import value_by_hand as by_hand
from test_equations import SCALE, softplus
from torch import Tensor
from toys import D_Z, toy_batch, toy_method

from latentscale.config import load_config
from latentscale.distributed.statistics import FusedStatistics
from latentscale.inversion.editing import attribute_score, edit_latent
from latentscale.inversion.trained_model import TrainedModel
from latentscale.latents.attributes import FixedClassifier, attribute_categories, attribute_scores
from latentscale.methods.aedlsgan import AEDLSGAN
from latentscale.methods.base import Method
from latentscale.methods.phase import Batch
from latentscale.networks.initialisation import initialize
from latentscale.training.checks import plan_run
from latentscale.training.ema import WeightAverage
from latentscale.training.method_building import build_method
from latentscale.training.state import TrainingState

LABELS = [(2, 2, 2), (3, 2), (4,)]


def make(sizes: tuple[int, ...], **settings: object) -> Method:
    method = toy_method("aedlsgan", sizes, **settings)
    initialize(method.statistics["attributes"], 3, "attributes")
    return method


def category(method: Method, z: Tensor, sizes: tuple[int, ...]) -> list[int]:
    """argmax onehot((z∘s)w), for a binary attribute the sign of its one column (eq. 36)."""
    w, column, found = method.statistics["attributes"].weight, 0, []
    for size in sizes:
        columns = 1 if size == 2 else size
        scores = [float(sum(z[i] * SCALE[i] * w[i, column + k] for i in range(D_Z))) for k in range(columns)]
        found.append(int(scores[0] > 0) if size == 2 else scores.index(max(scores)))
        column += columns
    assert column == w.shape[1]
    return found


def active(method: Method, x: Tensor, labels: list[int], sizes: tuple[int, ...]) -> list[Tensor]:
    a = method.networks["discriminator"](x[None]).adversarial[0]
    return [a[sum(sizes[:i]) + label] for i, label in enumerate(labels)]


def encoder_loss(method: Method, z: Tensor, x: Tensor) -> Tensor:
    error = z - method.networks["discriminator"](x[None]).latent[0]
    return sum((error[i] * SCALE[i]) ** 2 for i in range(D_Z)) / D_Z


def generate(method: Method, z: Tensor) -> Tensor:
    # z∘s alone: this G has d_z inputs
    return method.networks["generator"]((z * SCALE)[None])[0]


def discriminator_loss(method: Method, batch: Batch, sizes: tuple[int, ...]) -> Tensor:
    samples = []
    for index, z in enumerate(batch.draws["discriminator_latent"]):
        fake = generate(method, z).detach()
        x = batch.real[index].clone().requires_grad_(True)
        a_r = active(method, x, batch.labels[index].tolist(), sizes)
        a_f = active(method, fake, category(method, z, sizes), sizes)
        (slope,) = torch.autograd.grad(sum(a_r) / len(sizes), x, create_graph=True)
        loss = sum(softplus(-r) + softplus(f) for r, f in zip(a_r, a_f, strict=True)) / len(sizes)
        samples.append(loss + 0.7 * (slope**2).sum() + encoder_loss(method, z, fake))
    return sum(samples) / len(samples)


def generator_loss(method: Method, batch: Batch, sizes: tuple[int, ...], encoder: bool = True) -> Tensor:
    samples = []
    for z in batch.draws["generator_latent"]:
        x = generate(method, z)
        loss = sum(softplus(-a) for a in active(method, x, category(method, z, sizes), sizes)) / len(sizes)
        samples.append(loss + encoder_loss(method, z, x) if encoder else loss)
    return sum(samples) / len(samples)


@pytest.mark.parametrize("encoder", [True, False])
@pytest.mark.parametrize("sizes", LABELS)
def test_both_phases_are_algorithm_3(sizes: tuple[int, ...], encoder: bool) -> None:
    method = make(sizes, encoder_in_generator=encoder)
    batch = toy_batch(method)
    results, found = run(method, batch)
    expected = [
        by_hand(method, "discriminator", lambda: discriminator_loss(method, batch, sizes)),
        by_hand(method, "generator", lambda: generator_loss(method, batch, sizes, encoder)),
    ]
    for terms, gradients, (loss, slopes) in zip(results, found, expected, strict=True):
        torch.testing.assert_close(terms.loss, loss, rtol=1e-12, atol=1e-14)
        assert gradients.keys() == slopes.keys()
        for key in slopes:
            torch.testing.assert_close(gradients[key], slopes[key], rtol=1e-10, atol=1e-13)
        assert len(terms.observed["variance"]) == len(batch.real)
    trained = {key for gradients in found for key in gradients}
    assert trained == {f"{name}.{key}" for name, net in method.networks.items() for key, _ in net.named_parameters()}


@pytest.mark.parametrize("sizes", LABELS)
def test_every_category_occurs_so_that_the_comparison_means_something(sizes: tuple[int, ...]) -> None:
    method = make(sizes)
    found = [category(method, z, sizes) for z in toy_batch(method, 2, 32).draws["discriminator_latent"]]
    for label, size in enumerate(sizes):
        assert {each[label] for each in found} == set(range(size))


def test_streams_together_are_streams_apart() -> None:
    method = make((3, 2))
    assert_streams_apart(method, toy_batch(method, 2, 4))


@pytest.mark.slow
def test_a_phase_compiles_whole_and_gives_the_same_numbers() -> None:
    method = make((3, 2))
    assert_compiles(method, toy_batch(method))


def test_a_positive_score_means_having_the_attribute() -> None:
    # scores of two latents along two attributes, and of three hair colours, by hand
    weight = torch.tensor([[1.0, 0.0, 2.0, 0.0, 1.0], [0.0, -1.0, 0.0, 3.0, 1.0]])
    latent = torch.tensor([[1.0, 2.0], [-1.0, -0.5]])
    scores = [[1.0, -2.0, 2.0, 6.0, 3.0], [-1.0, 0.5, -2.0, -1.5, -1.5 - 0.0]]
    torch.testing.assert_close(attribute_scores(latent, weight), torch.tensor(scores))
    found = attribute_categories(latent, weight, (2, 2, 3))
    assert found.tolist() == [[0, 1, 1, 0, 0, 1, 0], [1, 0, 0, 1, 0, 1, 0]]


def test_autocast_turns_no_category() -> None:
    generator = torch.Generator().manual_seed(0)
    latent, weight = torch.randn(4096, 16, generator=generator), torch.randn(16, 5, generator=generator)
    exact = attribute_categories(latent, weight, (2, 2, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(attribute_categories(latent, weight, (2, 2, 3)), exact)
        # the control: a matmul would
        assert ((latent @ weight)[:, 0] > 0).ne(exact[:, 1] > 0).any()


@pytest.mark.slow
def test_w_never_changes_while_the_rest_trains() -> None:
    method = make((2, 2, 2))
    statistics = FusedStatistics(method.statistics, torch.device("cpu"), torch.float64)
    optimizers = [torch.optim.AdamW(phase.parameters(), lr=0.1, weight_decay=0.1) for phase in method.phases]
    before = method.statistics["attributes"].weight.clone()
    scale = method.state()["scale"].clone()
    for _ in range(5):
        batch = toy_batch(method)
        for phase, optimizer in zip(method.phases, optimizers, strict=True):
            phase.train_only_owned()
            optimizer.zero_grad()
            terms = phase(batch)
            terms.loss.backward()
            optimizer.step()
            statistics.observe(terms.observed)
        statistics.pack(False)
        statistics.finish(torch.ones(()))
    assert torch.equal(method.statistics["attributes"].weight, before)
    assert method.statistics["attributes"].weight.grad is None
    assert not torch.equal(method.state()["scale"], scale)  # the control: v did move
    # and nothing could change it by observing
    classifier = FixedClassifier(3, (2,))
    classifier.update(classifier.contribution(torch.ones(4, 3)), torch.tensor(4.0), torch.ones(()))
    assert not classifier.weight.any()


def built(seed: int) -> Method:
    arguments = [f"run.seed={seed}", "latent.dim=300", "network.widths=[2]", "network.base_width=2"]
    return build_method(plan_run(load_config(AEDLSGAN.Settings, "aedlsgan", {}, arguments), AEDLSGAN))


def test_w_is_drawn_with_the_weights_and_saved_with_the_state() -> None:
    method = built(5)
    w = method.statistics["attributes"].weight
    assert w.shape == (300, 10)  # the ten digits
    # 3000 draws of N(0, 1): standard errors 0.018 of the mean and 0.026 of the variance
    assert abs(w.mean()) < 0.08
    assert abs(w.var() - 1) < 0.11
    assert torch.equal(built(5).statistics["attributes"].weight, w)  # so every process has the same
    assert not torch.equal(built(6).statistics["attributes"].weight, w)
    assert not w.requires_grad
    tensors = TrainingState(method, WeightAverage(method.networks, 0.999), []).tensors()
    assert tensors["statistic/attributes/weight"].data_ptr() == w.data_ptr()
    assert method.state()["attributes"] is w
    # reports are of v and s
    assert not [name for name in method.summary() if name.startswith("attributes")]


@pytest.mark.slow
def test_w_follows_the_statistics_device_and_type() -> None:
    method = make((2, 3))
    for statistic in method.statistics.values():
        statistic.to("meta", torch.float64)
    assert {value.device.type for value in method.state().values()} == {"meta"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [3, 64, 1024])
@pytest.mark.parametrize("target", [-3.0, -1.0, 0.0, 0.25, 1.0])
def test_an_edited_score_is_its_target(dim: int, dtype: torch.dtype, target: float) -> None:
    generator = torch.Generator().manual_seed(dim)
    latent = torch.randn(16, dim, generator=generator, dtype=torch.float64).to(dtype)
    w = torch.randn(dim, 2, generator=generator, dtype=torch.float64).to(dtype)
    edited = edit_latent(latent, w[:, 0], target)
    assert edited.dtype == dtype
    found = (edited @ w[:, 0]) / math.sqrt(dim)
    assert (found - target).abs().max() <= 1e-5
    torch.testing.assert_close(found, attribute_score(edited, w[:, 0]), rtol=1e-5, atol=1e-5)
    # moved along w_i alone, hence by as little as can be
    change = (edited - latent).double()
    along = (change @ w[:, 0].double())[:, None] * w[:, 0].double() / w[:, 0].double().square().sum()
    assert (change - along).abs().max() <= (1e-5 if dtype == torch.float32 else 1e-12)


def test_an_edit_by_hand() -> None:
    # d_z = 4, w = (1, 0, 2, 0), ‖w‖² = 5; z∘s·w = 3; t = 2: 2·√4 − 3 = 1, so w/5 is added
    latent = torch.tensor([[1.0, 7.0, 1.0, -7.0]], dtype=torch.float64)
    direction = torch.tensor([1.0, 0.0, 2.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(edit_latent(latent, direction, 2.0), torch.tensor([[1.2, 7.0, 1.4, -7.0]]).double())
    # a target for each
    both = edit_latent(latent.repeat(2, 1), direction, torch.tensor([1.5, 2.0]))
    torch.testing.assert_close(both[0], latent[0])
    assert attribute_score(both, direction).tolist() == pytest.approx([1.5, 2.0], abs=1e-12)


def test_an_edit_turns_the_category() -> None:
    generator = torch.Generator().manual_seed(0)
    latent, w = torch.randn(64, 8, generator=generator), torch.randn(8, 3, generator=generator)
    for target, has in ((0.1, 1), (-0.1, 0)):
        found = attribute_categories(edit_latent(latent, w[:, 1], target), w, (2, 2, 2))
        assert (found[:, 2 + has] == 1).all()


def test_settings_are_dlsgans() -> None:
    assert {field.name for field in dataclasses.fields(AEDLSGAN.Settings)} >= {"encoder_weight", "encoder_in_generator"}
    assert not [field for field in dataclasses.fields(AEDLSGAN.Settings) if field.name.startswith("mix_")]


def test_w_is_kept_with_the_exported_model(tmp_path: Path) -> None:
    method = built(5)
    network = load_config(AEDLSGAN.Settings, "aedlsgan", {}, ["network.widths=[2]", "network.base_width=2"]).network
    TrainedModel(method, network, 0, 0, "digits").save(tmp_path / "model")
    again = TrainedModel.load(tmp_path / "model")
    assert torch.equal(again.method.latent_state()["attributes"], method.statistics["attributes"].weight)
