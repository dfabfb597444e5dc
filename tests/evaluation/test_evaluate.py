"""What metrics share: which apply, what is computed once, and what is declared."""

import ast
import string
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import latentscale.evaluation
from latentscale.errors import UserError
from latentscale.evaluation.evaluate import evaluate, met_by
from latentscale.evaluation.explain import explain
from latentscale.evaluation.metric import Direction, Figure, Metric, Need
from latentscale.evaluation.registry import METRICS
from latentscale.evaluation.samples import FakeBatch, RealBatch, Samples
from latentscale.inversion.trained_model import TrainedModel
from latentscale.methods.autoencoder import Autoencoder
from latentscale.methods.classifier import Classifier
from latentscale.networks.factory import NetworkSettings
from latentscale.networks.spec import ModelSpec
from tiny_models import DIM, exact_model, model_of, tiny_model

FOLDER = Path(latentscale.evaluation.__path__[0])
IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def real_means(batch: RealBatch) -> Tensor:
    return batch.samples.flatten(1).mean(dim=1)


def label_sums(batch: RealBatch) -> Tensor:
    return batch.labels.sum(dim=1)


def feature_gap(samples: Samples) -> dict[str, float]:
    return {"feature_gap": (samples.rows(real_features).mean(0) - samples.rows(fake_features).mean(0)).sum().item()}


def real_features(batch: RealBatch) -> Tensor:
    return batch.features


def fake_features(batch: FakeBatch) -> Tensor:
    return batch.features


LABEL_SUM = Metric(
    name="label_sum",
    description="the sum of all labels",
    source="none",
    figures=(Figure("label_sum", Direction.NEITHER),),
    needs=frozenset({Need.LABELS}),
    measure=lambda samples: {"label_sum": samples.rows(label_sums).sum().item()},
    shown="label sum {label_sum}",
    per_real=(label_sums,),
)
FEATURE_GAP = Metric(
    name="feature_gap",
    description="how far the mean features of real and generated samples are apart",
    source="none",
    figures=(Figure("feature_gap", Direction.LOWER),),
    needs=frozenset({Need.FEATURES, Need.GENERATION}),
    measure=feature_gap,
    shown="feature gap {feature_gap}",
    per_real=(real_features,),
    per_fake=(fake_features,),
)


def count_calls(model: TrainedModel) -> Counter[str]:
    """Samples that each network is given from now on."""
    seen: Counter[str] = Counter()

    def watch(name: str, network: nn.Module) -> None:
        def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[name] += len(inputs[0])

        network.register_forward_pre_hook(count)

    for name, network in model.method.networks.items():
        watch(name, network)
    return seen


@pytest.mark.slow
def test_all_metrics_share_one_pass_over_reals_and_one_over_fakes() -> None:
    model = tiny_model((1, 16, 16))
    seen = count_calls(model)
    # each metric twice: what one has computed, the next one finds
    twice = [replace(metric, name=name + again) for name, metric in METRICS.items() for again in ("", "-again")]
    evaluate(model, torch.zeros(5, 1, 16, 16), seed=0, fresh_draws=7, batch_images=2, metrics=twice)
    assert seen == {"generator": 5 + 7, "discriminator": 5 + 7}


def test_no_network_is_called_for_nobody() -> None:
    model = tiny_model(encoder=False)
    seen = count_calls(model)
    report = evaluate(model, IMAGES, seed=0)
    assert not seen
    assert report["fresh_draws"] == 0


def test_figures_that_do_not_apply_are_none_and_those_without_labels_or_features_are_left_out() -> None:
    report = evaluate(tiny_model((2,)), torch.zeros(3, 2), seed=0, fresh_draws=4)
    keys = [key for name, metric in METRICS.items() if name != "accuracy" for key in metric.keys]
    assert list(report) == ["real_images", "fresh_draws", "latent_dimensions", *keys]
    assert report["ssim"] is None
    assert isinstance(report["latent_error_mean"], float)


def test_what_models_offer() -> None:
    images = NetworkSettings(family="residual", widths=[4], base_width=4)
    classifier = model_of(Classifier, images, ModelSpec((1, 8, 8), DIM, (3,)))
    autoencoder = model_of(Autoencoder, images, ModelSpec((1, 8, 8), DIM))
    assert met_by(classifier) == {Need.CLASSIFICATION, Need.IMAGES}
    assert met_by(autoencoder) == {Need.INVERSION, Need.IMAGES}
    assert met_by(tiny_model((2,))) == {Need.GENERATION, Need.INVERSION, Need.LATENT_VARIANCE}
    assert met_by(tiny_model(encoder=False)) == {Need.GENERATION, Need.IMAGES}


def test_labels_are_asked_for_only_by_metrics_that_use_them() -> None:
    def unasked() -> Tensor:
        raise AssertionError("no metric of this model needs labels")

    evaluate(tiny_model(), IMAGES, seed=0, fresh_draws=4, labels=unasked)
    labels = torch.arange(10).reshape(5, 2)
    report = evaluate(tiny_model(), IMAGES, 0, 4, labels=lambda: labels, batch_images=2, metrics=[LABEL_SUM])
    assert report["label_sum"] == 45
    assert "label_sum" not in evaluate(tiny_model(), IMAGES, 0, 4, labels=lambda: None, metrics=[LABEL_SUM])
    assert "label_sum" not in evaluate(tiny_model(), IMAGES, 0, 4, metrics=[LABEL_SUM])


def test_accuracy_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    network = NetworkSettings(family="residual", widths=[4], base_width=4)
    model = model_of(Classifier, network, ModelSpec((1, 8, 8), DIM, (2, 3)))
    # a sample's pixels say what is answered: the first two of the first label, the next three of the second
    monkeypatch.setattr(model.method, "classify", lambda sample: sample.flatten(1)[:, :5])
    samples = torch.full((3, 1, 8, 8), -1.0)
    for index, (first, second) in enumerate([(0, 2), (1, 0), (1, 1)]):
        samples[index, 0, 0, [first, 2 + second]] = 1.0
    labels = torch.tensor([[0, 2], [1, 1], [0, 1]])
    report = evaluate(model, samples, seed=0, labels=lambda: labels, batch_images=2)
    # both right, the first right, the second right
    assert report["accuracy"] == pytest.approx(4 / 6)
    assert any(line.startswith("accuracy 66.67%: ") for line in explain(report))


@pytest.mark.parametrize("labels", [torch.zeros(3, dtype=torch.int64), torch.zeros(4, 2, dtype=torch.int64)])
def test_labels_that_do_not_fit_the_samples_are_refused(labels: Tensor) -> None:
    network = NetworkSettings(family="residual", widths=[4], base_width=4)
    model = model_of(Classifier, network, ModelSpec((1, 8, 8), DIM, (2, 3)))
    with pytest.raises(UserError, match=r"labels have shape .*, but 3 reference samples need \[3, d_l\]"):
        evaluate(model, torch.zeros(3, 1, 8, 8), seed=0, labels=lambda: labels)


def test_features_are_those_of_the_extractor_and_of_clipped_fakes() -> None:
    # G(z) = 100 z: nearly all pixels leave [-1, 1], and are clipped to ±1
    model = exact_model((1, 2, 2), torch.ones(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64), 100.0)
    reals = torch.full((3, 1, 2, 2), 0.5, dtype=torch.float64)

    def largest(images: Tensor) -> Tensor:
        return images.abs().flatten(1).amax(dim=1, keepdim=True)

    report = evaluate(model, reals, 0, 6, extractor=largest, batch_images=2, metrics=[FEATURE_GAP])
    assert report["feature_gap"] == pytest.approx(0.5 - 1.0, abs=0.01)
    assert "feature_gap" not in evaluate(model, reals, 0, 6, metrics=[FEATURE_GAP])


def test_a_metric_that_breaks_its_declaration_is_named() -> None:
    wrong = replace(LABEL_SUM, figures=(Figure("sum", Direction.LOWER),))
    labels = torch.zeros(5, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"label_sum declares \['sum'\], but measured \['label_sum'\]"):
        evaluate(tiny_model(), IMAGES, 0, 4, labels=lambda: labels, metrics=[wrong])
    with pytest.raises(ValueError, match="no labels"):
        evaluate(tiny_model(), IMAGES, 0, 4, metrics=[replace(LABEL_SUM, needs=frozenset())])
    with pytest.raises(KeyError):
        evaluate(
            tiny_model(), IMAGES, 0, 4, labels=lambda: labels, metrics=[replace(LABEL_SUM, per_real=(real_means,))]
        )


def test_every_metric_has_its_file_and_declares_itself_fully() -> None:
    files = {path.stem for path in (FOLDER / "metrics").glob("*.py")} - {"__init__"}
    assert files == set(METRICS)
    keys = [key for metric in METRICS.values() for key in metric.keys]
    counts = {"real_images", "fresh_draws", "latent_dimensions"}
    assert len(keys) == len({*keys, *counts, "held_out"}) - len(counts) - 1
    for metric in METRICS.values():
        assert metric.description
        assert metric.source
        used = {name for _, name, _, _ in string.Formatter().parse(metric.shown) if name}
        # every figure is printed
        assert set(metric.keys) <= used <= {*metric.keys, *counts}


def test_a_line_says_the_unit_and_the_direction_that_are_declared() -> None:
    model = exact_model((1, 2, 2), torch.ones(4, dtype=torch.float64), torch.full((4,), 0.2, dtype=torch.float64))
    report = evaluate(model, torch.zeros(2, 1, 2, 2, dtype=torch.float64), seed=0, fresh_draws=3)
    # 10 log10(4 / .04) = 20
    line = next(line for line in explain(report) if line.startswith("reconstruction"))
    assert line.startswith("reconstruction 20.00 dB PSNR (mean of the images' own: 20.00 dB) over 2 real images: ")
    assert line.endswith("; higher is better")
    lower = replace(
        METRICS["psnr"], figures=(Figure("psnr_db", Direction.LOWER, "decibels", ".1f"),), shown="{psnr_db}"
    )
    (line,) = explain(report, [lower])
    assert line.startswith("20.0 decibels: ")
    assert line.endswith("; lower is better")


def test_evaluation_imports_nothing_of_training_data_or_processes() -> None:
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("latentscale."):
                room = str(node.module).split(".")[1]
                assert room in {"errors", "evaluation", "inversion", "latents", "networks", "methods"}, path
