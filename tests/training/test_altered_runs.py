"""Files of a run that hold something else are refused in one line, or read for what they still hold."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentscale import Inverter
from latentscale.config import load_config
from latentscale.errors import UserError
from latentscale.methods.registry import METHODS
from latentscale.telemetry.run_log import MetricsFile
from latentscale.training.checkpoints import TENSORS, list_checkpoints
from latentscale.training.loop import train
from launching import ROOT, overrides


def run(folder: Path, steps: int) -> Path:
    settings = overrides(training__steps=steps, run__dir=folder, training__precision="fp32")
    method = METHODS["pvdgan"]
    train(load_config(method.Settings, "pvdgan", {"preset": "digits8"}, settings, ROOT / "recipes/presets"), method)
    return folder


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    return run(tmp_path / "run", 1)


def alter(file: Path, key: str, change: Callable[[Tensor], Tensor]) -> None:
    tensors = load_file(file)
    (name,) = [name for name in tensors if name.endswith(key)][:1]
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, file)


def with_nan(tensor: Tensor) -> Tensor:
    tensor.view(-1)[0] = float("nan")
    return tensor


LAST = "discriminator/exp_avg/discriminator.heads.latent.weight"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        (LAST, lambda t: t.double(), r"holds float64, not float32"),
        (LAST, lambda t: t.int(), r"holds int32, not float32"),
        (LAST, lambda t: t[:1], r"has another shape"),
        (LAST, lambda t: t[:0], r"has another shape"),
        (LAST, with_nan, r"is not finite: move the checkpoint away"),
        (LAST.replace("exp_avg", "step"), lambda t: t.half(), r"holds float16, not float32"),
        ("network/generator/base_bias", with_nan, r"is not finite: move the checkpoint away"),
        ("network/generator/base_bias", lambda t: t.bool(), r"holds bool, not float32"),
        ("network/generator/base_bias", lambda t: t.double(), r"holds float64, not float32"),
    ],
)
def test_an_altered_checkpoint_is_refused(
    key: str, change: Callable[[Tensor], Tensor], message: str, finished: Path
) -> None:
    (checkpoint,) = list_checkpoints(finished / "checkpoints")
    alter(checkpoint / TENSORS, key, change)
    with pytest.raises(UserError, match=message) as refused:
        run(finished, 2)
    assert key in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("content", ["3", "[]", "null", "{}", '{"step": 1}', "{", "[" * 100_000, '"x"'])
def test_another_state_is_refused(content: str, finished: Path) -> None:
    (checkpoint,) = list_checkpoints(finished / "checkpoints")
    (checkpoint / "state.json").write_text(content)
    with pytest.raises(UserError, match=r"checkpoint .* cannot be read \(.*move it away") as refused:
        run(finished, 2)
    assert "\n" not in str(refused.value)
    assert "NoneType" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("generator", with_nan, r"has weights that are not finite"),
        ("discriminator", lambda t: t * float("inf"), r"has weights that are not finite"),
        ("generator", lambda t: t.to(torch.int64), r"holds torch\.int64, not floating-point weights"),
        ("generator", lambda t: t.bool(), r"holds torch\.bool, not floating-point weights"),
        ("generator", lambda t: t[:0], r"has shape \["),
        ("statistics", lambda t: t.bool(), r"must contain finite numbers"),
        ("statistics", with_nan, r"must contain finite numbers"),
    ],
)
def test_an_altered_model_is_refused(
    file: str, change: Callable[[Tensor], Tensor], message: str, finished: Path
) -> None:
    alter(finished / "model" / f"{file}.safetensors", "", change)
    with pytest.raises(UserError, match=rf"{file}\.safetensors.*{message}"):
        Inverter.load(finished)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["state.json", TENSORS])
def test_a_pipe_in_the_place_of_a_checkpoints_file_is_not_waited_for(file: str, finished: Path) -> None:
    (checkpoint,) = list_checkpoints(finished / "checkpoints")
    (checkpoint / file).unlink()
    os.mkfifo(checkpoint / file)
    with pytest.raises(UserError, match=r"checkpoint .* cannot be read \(.*not a file.*move it away"):
        run(finished, 2)


@pytest.mark.slow
@pytest.mark.parametrize("start_weights", ["averaged", "raw"])
def test_a_pipe_in_another_runs_model_is_not_waited_for(start_weights: str, finished: Path, tmp_path: Path) -> None:
    (checkpoint,) = list_checkpoints(finished / "checkpoints")
    path = checkpoint / TENSORS if start_weights == "raw" else finished / "model" / "generator.safetensors"
    path.unlink()
    os.mkfifo(path)
    method = METHODS["pvdgan"]
    words = overrides(training__steps=1, run__dir=tmp_path / "new", run__start_from=finished)
    config = load_config(
        method.Settings, "pvdgan", {"preset": "digits8"}, [*words, f"run.start_weights={start_weights}"],
        ROOT / "recipes/presets",
    )  # fmt: skip
    with pytest.raises(UserError, match=r"run\.start_from=.* cannot be read \(.*not a file"):
        train(config, method)


def test_lines_of_metrics_that_are_no_records_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    good = [json.dumps({"step": step, "loss": 1.0}) for step in (1, 2, 3)]
    odd = [b"3", b"[1]", b"null", b'"x"', b'{"step": "2"}', b'{"step": true}', b"\xff\xfe", b"{", b"[" * 100_000]
    path.write_bytes(b"\n".join([good[0].encode(), *odd, good[1].encode(), good[2].encode()]) + b"\n")
    file = MetricsFile(path, 2)
    file.write({"step": 3, "loss": 2.0})
    file.close()
    assert path.read_text().splitlines() == [*good[:2], '{"step": 3, "loss": 2.0}']


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_metrics_that_are_no_regular_file_are_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl is not a regular file: move it away"):
        MetricsFile(path, 2)
