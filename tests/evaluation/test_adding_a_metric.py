"""A new metric is one file and its name in the registry: in the documented example, and in one made here."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from latentscale.commands.app import app
from latentscale.evaluation.evaluate import evaluate
from latentscale.evaluation.explain import explain
from latentscale.evaluation.registry import METRICS
from latentscale.methods.cagan import CAGAN
from latentscale.networks.factory import NetworkSettings
from latentscale.networks.spec import ModelSpec
from launching import ROOT, Processes
from tiny_models import DIM, model_of
from worked_examples import apply_metric, copy_code

BRIGHTNESS = """
from latentscale.evaluation.metric import Direction, Figure, Metric, Need

def means(batch):
    return batch.samples.flatten(1).mean(dim=1)

def brightness(samples):
    return {"fake_brightness": samples.rows(means).mean().item()}

BRIGHTNESS = Metric(
    name="brightness",
    description="how bright generated images are",
    source="an average",
    figures=(Figure("fake_brightness", Direction.NEITHER, "lux"),),
    needs=frozenset({Need.GENERATION, Need.IMAGES}),
    measure=brightness,
    shown="brightness {fake_brightness} of {fresh_draws} samples",
    per_fake=(means,),
)
"""


def test_the_documented_example_works_as_written(tmp_path: Path, processes: Processes) -> None:
    copy_code(tmp_path)
    (test,) = apply_metric(tmp_path)
    paths = f"{tmp_path / 'platform'}:{ROOT / 'tests'}"
    tested = processes.run(
        [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", test], tmp_path, interpreter=True,
        PYTHONPATH=paths,
    )  # fmt: skip
    assert "1 passed" in tested.out, tested.out + tested.err
    command = [sys.executable, "-c", "from latentscale.cli import main; main()", "metrics"]
    listed = processes.run(command, tmp_path, interpreter=True, PYTHONPATH=paths)
    assert "how wrong the worst pixel of a reconstruction is" in listed.out, listed.err


def test_a_metric_from_a_new_file_is_measured_printed_and_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "brightness.py"
    path.write_text(BRIGHTNESS)
    spec = importlib.util.spec_from_file_location("brightness", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(METRICS, "brightness", module.BRIGHTNESS)

    # a generator that takes categories, which are drawn too
    network = NetworkSettings(family="residual", widths=[4], base_width=4)
    model = model_of(CAGAN, network, ModelSpec((1, 8, 8), DIM, (3,)))
    report = evaluate(model, torch.zeros(2, 1, 8, 8), seed=0, fresh_draws=7, batch_images=4)
    assert report["fresh_draws"] == 7
    value = report["fake_brightness"]
    assert isinstance(value, float)
    assert f"brightness {value:.3f} lux of 7 samples: how bright generated images are" in explain(report)
    listed = CliRunner().invoke(app, ["metrics"])
    assert listed.exit_code == 0
    for part in ("brightness", "fake_brightness", "lux", "neither", "generation", "how bright generated images are"):
        assert part in listed.stdout
