"""The configuration: who overrides whom, and how what is wrong is refused."""

from pathlib import Path

import pytest

from latentscale.config import changed_keys, describe_keys, keys, load_config
from latentscale.errors import UserError
from latentscale.methods.pvdgan import PVDGANSettings
from latentscale.methods.registry import METHODS


def load(*arguments: str, recipe: dict[str, object] | None = None, presets: Path | None = None):
    return load_config(PVDGANSettings, "pvdgan", recipe, arguments, presets)


def test_later_sources_override_earlier_ones(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(
        "training: {steps: 3, batch: 3}\nlatent.dim: 5\n"
        "methods: {pvdgan: {method: {r1: 7}}, dlsgan: {method: {r1: 9}}}\n"
    )
    recipe = {"training.steps": 2, "training.batch": 2, "optimizer.beta2": 0.5}
    config = load("training.batch=4", "preset=small", recipe=recipe, presets=tmp_path)
    # the command line beats the preset wherever it stands, the preset the recipe, the recipe the defaults
    assert (config.training.batch, config.training.steps, config.optimizer.beta2) == (4, 3, 0.5)
    assert config.latent.dim == 5
    assert config.method.r1 == 7
    assert config.optimizer.beta1 == 0.0


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("training.stepz=3", ["training.stepz", "training.steps"]),
        ("steps=3", ["'steps'", "training.steps"]),
        ("training.steps=many", ["training.steps", "an integer"]),
        ("training.steps=1.5", ["training.steps", "an integer"]),
        ("training.steps=0", ["training.steps=0", ">= 1"]),
        ("optimizer.learning_rate=nan", ["optimizer.learning_rate", "> 0"]),
        ("latent.law=cauchy", ["latent.law=cauchy", "normal, uniform"]),
        ("method.adversarial=x", ["method.adversarial=x", "hinge"]),
        ("network.widths=7", ["network.widths", "a list"]),
        ("network.widths=[0]", ["network.widths"]),
        ("training=3", ["'training' is a section"]),
        ("training.steps", ["key=value"]),
        ("preset=nowhere", ["preset=nowhere", "small"]),
        ("optimizer.learning_rate=inf", ["optimizer.learning_rate=inf"]),
        ("method.r1=inf", ["method.r1=inf"]),
        ("evaluation.images=1", ["evaluation.images=1", ">= 2"]),
        ("run.restart=perhaps", ["run.restart", "true or false"]),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(argument: str, parts: list[str], tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("training.steps: 3\n")
    with pytest.raises(UserError) as refusal:
        load(argument, presets=tmp_path)
    message = str(refusal.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_texts_are_taken_as_they_stand(tmp_path: Path) -> None:
    config = load("run.dir=007", "data.path=1e3", "training.compile=", "preset=", presets=tmp_path)
    assert (config.run.dir, config.data.path, config.training.compile, config.preset) == ("007", "1e3", "", "")


def test_another_methods_keys_count_as_changed() -> None:
    old = load().to_dict()
    new = load_config(METHODS["msegan"].Settings, "msegan")
    assert [change for change in changed_keys(old, new) if "reconstruction_weight" in change] == [
        "method.reconstruction_weight: 1.0 → (absent)"
    ]


def test_a_preset_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("training: {epochs: 3}\n")
    with pytest.raises(UserError, match=r"preset bad: training\.epochs"):
        load("preset=bad", presets=tmp_path)


def test_a_continued_run_may_change_only_marked_keys() -> None:
    old = load("training.steps=10").to_dict()
    assert changed_keys(old, load("training.steps=20", "training.accumulation=2", "run.dir=elsewhere")) == []
    assert changed_keys(old, load("training.batch=64")) == ["training.batch: 32 → 64"]
    assert changed_keys(old, load("method.r1=1", "network.widths=[3]"))[1].startswith("method.r1")


def test_a_key_that_an_older_release_did_not_have_counts_as_its_default() -> None:
    old = load().to_dict()
    del old["optimizer"]["weight_decay"], old["method"]
    assert changed_keys(old, load()) == []
    assert changed_keys(old, load("optimizer.weight_decay=0.1")) == ["optimizer.weight_decay: 0.0 → 0.1"]


@pytest.mark.parametrize("name", METHODS)
def test_every_key_explains_itself(name: str) -> None:
    config = load_config(METHODS[name].Settings, name)
    rows = describe_keys(config)
    assert len(rows) == len(list(keys(config)))
    assert [row[0] for row in rows if len(row[3]) < 10] == []
    kinds = {row[0]: row[1] for row in rows}
    assert kinds["data.label_probabilities"] == "list of numbers"
    assert kinds["latent.categories"] == "list of integers"
