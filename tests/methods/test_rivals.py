"""The methods without an adversary: autoencoder, classifier and post-hoc encoder."""

from pathlib import Path

import pytest
import torch
from steps import assert_compiles, assert_same, assert_streams_apart, assert_trains, by_hand, run
from torch import Tensor
from toys import D_Z, DATA, toy_batch, toy_method

from latentscale.config import load_config
from latentscale.errors import UserError
from latentscale.methods.base import Method
from latentscale.methods.dlsgan import DLSGAN
from latentscale.methods.phase import Batch
from latentscale.methods.posthoc_encoder import PosthocEncoder
from latentscale.methods.vanilla import Vanilla
from latentscale.training.checks import plan_dry_run, plan_run
from latentscale.training.method_building import build_method, network_sizes
from tiny_models import DIM, tiny_model

SIZES = (3, 2)
TRAINED = {
    "autoencoder": ("generator", "encoder"),
    "classifier": ("classifier",),
    "posthoc_encoder": ("encoder",),
}


def method_of(name: str) -> Method:
    return toy_method(name, SIZES if name == "classifier" else ())


def autoencoder_loss(method: Method, batch: Batch) -> Tensor:
    losses = []
    for x in batch.real:
        rebuilt = method.networks["generator"](method.networks["encoder"](x[None]).latent)[0]
        losses.append(sum((x[i] - rebuilt[i]) ** 2 for i in range(DATA)) / DATA)
    return sum(losses) / len(losses)


def classifier_loss(method: Method, batch: Batch) -> Tensor:
    classifier = method.networks["classifier"]
    losses = []
    for x, labels in zip(batch.real, batch.labels, strict=True):
        activations = torch.clamp(classifier.trunk(x[None]).latent[0], min=0)
        last = classifier.to_logits
        logits = last.weight @ activations / D_Z**0.5 + last.bias
        for label, part in zip(labels, (logits[:3], logits[3:]), strict=True):
            losses.append(torch.log(torch.exp(part).sum()) - part[label])
    return sum(losses) / len(losses)


def posthoc_encoder_loss(method: Method, batch: Batch) -> Tensor:
    losses = []
    for z in batch.draws["generator_latent"]:
        image = method.networks["generator"](z[None]).detach()
        predicted = method.networks["encoder"](image).latent[0]
        losses.append(sum((z[i] - predicted[i]) ** 2 for i in range(D_Z)) / D_Z)
    return sum(losses) / len(losses)


LOSSES = {"autoencoder": autoencoder_loss, "classifier": classifier_loss, "posthoc_encoder": posthoc_encoder_loss}


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_and_what_it_reaches(name: str) -> None:
    method = method_of(name)
    if name == "classifier":
        with torch.no_grad():  # zeros otherwise
            method.networks["classifier"].to_logits.weight.normal_(generator=torch.Generator().manual_seed(3))
    batch = toy_batch(method)
    (terms,), (found,) = run(method, batch)
    expected = by_hand(method, {network: lambda: LOSSES[name](method, batch) for network in TRAINED[name]})
    assert_same(found, expected)
    assert_trains(found, method, *TRAINED[name])
    torch.testing.assert_close(terms.loss, LOSSES[name](method, batch), rtol=1e-12, atol=0)
    assert not any(value.requires_grad for value in terms.measured.values())


@pytest.mark.parametrize("name", LOSSES)
def test_streams_together_are_streams_apart(name: str) -> None:
    method = method_of(name)
    assert_streams_apart(method, toy_batch(method))


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_the_phase_compiles_whole(name: str) -> None:
    method = method_of(name)
    assert_compiles(method, toy_batch(method))


def test_accuracy_is_the_share_of_right_labels() -> None:
    method = method_of("classifier")
    batch = toy_batch(method)
    with torch.no_grad():
        method.networks["classifier"].to_logits.bias.copy_(torch.tensor([0.0, 5.0, 0.0, 5.0, 0.0]))
    # zero weights: every sample is said to be 1 and 0
    labels = torch.tensor([[1, 0], [1, 1], [0, 0], [2, 1], [1, 0], [1, 0], [1, 0], [0, 1]])
    (terms,), _ = run(method, batch._replace(labels=labels))
    assert terms.measured["accuracy"].item() == pytest.approx((5 + 5) / 16)


def test_without_latents_nothing_is_drawn() -> None:
    assert method_of("autoencoder").draws() == {}
    assert method_of("classifier").draws() == {}
    assert set(method_of("posthoc_encoder").draws()) == {"generator_latent"}


def settings(*arguments: str):
    return load_config(
        PosthocEncoder.Settings,
        "posthoc_encoder",
        {},
        [
            "data.name=digits",
            f"latent.dim={DIM}",
            "network.widths=[4]",
            "network.base_width=4",
            "training.batch=16",
            *arguments,
        ],
    )


def saved(folder: Path, **options: object) -> Path:
    tiny_model(**options).save(folder / "model")  # type: ignore[arg-type]
    return folder


def test_the_finished_generator_is_taken_and_only_the_encoder_starts_fresh(tmp_path: Path) -> None:
    run_folder = saved(tmp_path / "run", method=Vanilla)
    method = build_method(plan_run(settings(f"method.generator_run={run_folder}"), PosthocEncoder))
    expected = tiny_model(method=Vanilla).method.networks["generator"].state_dict()
    for key, value in method.networks["generator"].state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0)
    assert any(parameter.abs().max() > 0 for parameter in method.networks["encoder"].parameters())
    assert not any(value is method.networks["generator"] for phase in method.phases for value in phase.children())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("latent.dim=7", r"latent\.dim=6"),
        ("latent.law=uniform", r"latent\.law=normal"),
        ("network.base_width=8", r"network\.base_width=4"),
    ],
)
def test_a_generator_of_another_configuration_is_refused_by_the_key_that_differs(
    change: str, named: str, tmp_path: Path
) -> None:
    run_folder = saved(tmp_path / "run", method=Vanilla)
    with pytest.raises(UserError, match=named):
        plan_run(settings(f"method.generator_run={run_folder}", change), PosthocEncoder)


def test_a_generator_of_other_samples_scaled_latents_or_none_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"method\.generator_run is empty"):
        plan_run(settings(), PosthocEncoder)
    with pytest.raises(UserError, match=r"method\.generator_run=.*does not exist"):
        plan_run(settings(f"method.generator_run={tmp_path / 'none'}"), PosthocEncoder)
    larger = saved(tmp_path / "larger", method=Vanilla, shape=(1, 16, 16))
    with pytest.raises(UserError, match=r"data\.shape=\[1, 16, 16\]"):
        plan_run(settings(f"method.generator_run={larger}"), PosthocEncoder)
    scaled = saved(tmp_path / "scaled", method=DLSGAN)
    with pytest.raises(UserError, match="s = 1"):
        plan_run(settings(f"method.generator_run={scaled}"), PosthocEncoder)
    # a dry run may do without, as it may do without data
    assert network_sizes(plan_dry_run(settings(), PosthocEncoder))["encoder"] > 0
