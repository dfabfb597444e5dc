"""The configuration: who overrides whom, and how what is wrong is refused."""

import os
import re
from pathlib import Path

import pytest

from latentscale.config import changed_keys, describe_keys, keys, load_config
from latentscale.errors import UserError
from latentscale.methods.pvdgan import PVDGANSettings
from latentscale.methods.registry import METHODS

# each line repeats the one before it nine times: a list of 9¹⁰ elements
ALIASES = b"x0: &x0 [1]\n" + b"".join(
    b"x%d: &x%d [%s]\n" % (i, i, b",".join([b"*x%d" % (i - 1)] * 9)) for i in range(1, 11)
)


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


@pytest.mark.parametrize("text", [
    "[1,", "{a", "*x", "'", "@", "%", "!!python/object:x", "!!int x", "\x00", "\udcff", "${", "${x}", "${${",
    "9" * 5000, "[" * 3000, "[" * 3000 + "]" * 3000, "", " ", "\n", "{}", "[[1]]", "[{}]", "[true]", "[2.5]",
    "null", "1:30", "010", "1e400", "yes", "&a [*a]", "[1" + "0" * 400 + "]", "nan", "[.nan]", "2024-01-01",
    "x" * 70_000, "\x1b[2J", "-" * 9,
])  # fmt: skip
@pytest.mark.parametrize(
    "key", ["training.batch", "optimizer.learning_rate", "network.widths", "data.label_probabilities"]
)
def test_no_text_ends_in_anything_but_one_line_with_the_key(key: str, text: str) -> None:
    with pytest.raises(UserError) as refusal:
        load(f"{key}={text}")
    message = str(refusal.value)
    assert message.startswith(key)
    assert message.isprintable()
    assert len(message) < 600
    assert not re.search(r"<class|NoneType|Config\b|Error|Traceback", message)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"training: {batch: 3\nlatent: {dim: 2}\n", ["small.yaml", "line 2", "not valid YAML"]),
        (b"training.batch: 3\ntraining.batch: 4\n", ["small.yaml", "line 2", "duplicate"]),
        (b"training: {batch: {}}\n", ["training.batch={}", "an integer"]),
        (b"training: [1, 2]\n", ["training=[1, 2]", "section"]),
        (b"training: 3\n", ["training=3", "section"]),
        (b"network: {widths: {a: 1}}\n", ["network.widths.a=1", "unknown key"]),
        (b"run.dir: [a]\n", ["run.dir=['a']", "text"]),
        (b"run.dir: true\n", ["run.dir=true", "quotes"]),
        (b'run.dir: "a\\0b"\n', ["run.dir=a\\x00b", "NUL"]),
        (b'run.dir: ""\ndata.decoder: ""\n', ["data.decoder='' is not allowed"]),
        (b'data.decoder: "fast\\npillow"\n', ["data.decoder=fast\\npillow is not allowed"]),
        (b"- training\n", ["small.yaml", "keys and values", "a list"]),
        (b"just words\n", ["just words", "unknown key"]),
        (b"methods: {pvdgan: 3}\n", ["methods.pvdgan", "keys and values"]),
        (b"methods: [pvdgan]\n", ["methods must", "a list"]),
        (b"training.batch: \xff\n", ["small.yaml", "UTF-8"]),
        (b"training.batch: 3\n\x07\n", ["small.yaml", "character"]),
        (ALIASES, ["small.yaml"]),
        (b"a: &a [*a]\n", ["small.yaml", "recursive"]),
        (b"? [1]\n: 2\n", ["small.yaml"]),
        (b"training.batch: " + b"[" * 5000 + b"]" * 5000, ["small.yaml", "nested too deeply"]),
        (b"training.batch: " + b"9" * 5000, ["small.yaml", "digits"]),
        (b"run.dir: ${run.dir}\n", ["run.dir"]),
        (b"run.dir: ${nowhere}\n", ["run.dir", "nowhere"]),
        (b"#" * (2**20 + 1), ["small.yaml", "1 MiB"]),
        (b"training.batch: !!set {1}\n", ["small.yaml"]),
    ],
)  # fmt: skip
def test_no_preset_ends_in_anything_but_one_line(content: bytes, parts: list[str], tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_bytes(content)
    with pytest.raises(UserError) as refusal:
        load("preset=small", presets=tmp_path)
    message = str(refusal.value)
    assert message.startswith(("preset", parts[0]))
    assert message.isprintable()
    assert not re.search(r"<class|NoneType|ListConfig|DictConfig|Error\b", message)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("content", ["", "# nothing\n", "methods: {pvdgan: null}\n", "methods:\n", "training: {}\n"])
def test_an_empty_section_of_a_preset_changes_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(content)
    assert load("preset=small", presets=tmp_path).training == load().training


def test_a_value_may_refer_to_the_environment_and_to_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDER", "here")
    (tmp_path / "small.yaml").write_text("run.dir: ${oc.env:FOLDER}/${training.batch}\ntraining.batch: 7\n")
    assert load("preset=small", presets=tmp_path).run.dir == "here/7"


@pytest.mark.parametrize("name", ["training.\n", "\x1b[31m", "", " ", "x" * 5000, "training.batch.x", "method", "ａ"])
def test_a_name_that_is_no_key_is_shown_on_one_line(name: str) -> None:
    with pytest.raises(UserError) as refusal:
        load(f"{name}=1")
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 700


@pytest.mark.parametrize("kind", ["pipe", "folder", "long name"])
def test_a_preset_that_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("p" * 300 + ".yaml" if kind == "long name" else "p.yaml")
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "folder":
        path.mkdir()
    with pytest.raises(UserError, match=r"^preset="):
        load(f"preset={path}")


@pytest.mark.parametrize("value", ["1e39", "-1e39", "1e300", "1e-39", "1e-300", "5e-324"])
def test_numbers_that_32_bits_do_not_hold_are_refused(value: str) -> None:
    with pytest.raises(UserError, match=r"is not allowed: it must be 0 or between 1\.2e-38 and 3\.4e38 in size"):
        load(f"method.variance_start={value.removeprefix('-')}")
    with pytest.raises(UserError, match=r"optimizer\.epsilon=.* is not allowed"):
        load(f"optimizer.epsilon={value}")


@pytest.mark.parametrize("key", ["run.dir", "run.start_from", "data.cache_folder"])
@pytest.mark.parametrize("url", ["s3://bucket/runs", "https://host/x", "file:///home/x", "gs:/bucket"])
def test_a_url_in_place_of_a_folder_is_refused(key: str, url: str) -> None:
    with pytest.raises(UserError, match=rf"^{key}={url} is a URL, but must be a folder or file of this machine: "):
        load(f"{key}={url}")


def test_only_data_may_be_at_a_url() -> None:
    assert load("data.path=s3://bucket/photos").data.path == "s3://bucket/photos"
    # no URL: a drive letter, and a name with a colon
    assert load("run.dir=C:/runs").run.dir == "C:/runs"
    assert load("run.dir=runs/12:30").run.dir == "runs/12:30"


def test_numbers_at_the_ends_of_32_bits_are_taken() -> None:
    assert load("method.variance_start=3.4e38").method.variance_start == 3.4e38
    assert load("method.variance_start=1.2e-38").method.variance_start == 1.2e-38
    assert load("method.r1=0").method.r1 == 0
