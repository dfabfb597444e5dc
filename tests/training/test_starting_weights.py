"""A new run may take another run's weights: what fits is taken, what does not is named, and all else begins anew."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from states import final_state, worst_difference

from latentscale.config import load_config
from latentscale.errors import UserError
from latentscale.methods.base import Method
from latentscale.methods.registry import METHODS
from latentscale.training.checkpoints import list_checkpoints, load_checkpoint
from latentscale.training.components import build_components
from latentscale.training.loop import train
from launching import ROOT, Processes, launch_command, overrides


def run(folder: Path, steps: int, method: str = "pvdgan", **changes: object) -> Path:
    settings = overrides(training__steps=steps, run__dir=folder, **changes)
    train(load_config(METHODS[method].Settings, method, {"preset": "digits8"}, settings, ROOT / "recipes/presets"),
          METHODS[method])  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("source") / "run", 3, latent__dim=8)


def started(folder: Path, monkeypatch: pytest.MonkeyPatch, method: str = "pvdgan", **changes: object) -> Method:
    """The method of a new run before its first step."""
    found: list[Method] = []

    class Stop(Exception):
        pass

    def build(*arguments: object) -> None:
        found.append(build_components(*arguments).method)  # type: ignore[arg-type]
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("latentscale.training.loop.build_components", build)
        with pytest.raises(Stop):
            run(folder, 5, method, **changes)
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["averaged", "raw"])
def test_a_new_run_begins_with_the_weights_of_another(
    weights: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    method = started(tmp_path / "run", monkeypatch, run__start_from=source, run__start_weights=weights, run__seed=7)
    checkpoint = load_checkpoint(list_checkpoints(source / "checkpoints")[-1]).tensors
    prefix, other = ("average", "network") if weights == "averaged" else ("network", "average")
    for name, network in method.networks.items():
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, checkpoint[f"{prefix}/{name}/{key}"]), (name, key)
            assert not torch.equal(tensor, checkpoint[f"{other}/{name}/{key}"]), (name, key)
    variance = method.statistics["variance"].state_dict()["variance"]
    assert torch.equal(variance, checkpoint["statistic/variance/variance"])
    err = capsys.readouterr().err
    assert f"run.start_from={source}: took" in err
    assert "begin anew" not in err


@pytest.mark.slow
def test_what_does_not_fit_is_named_and_begins_anew(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    method = started(tmp_path / "run", monkeypatch, run__start_from=source / "model", latent__dim=9)
    theirs = load_file(source / "model" / "discriminator.safetensors")
    same = {key: tensor for key, tensor in method.networks["discriminator"].state_dict().items() if key in theirs
            and tensor.shape == theirs[key].shape}  # fmt: skip
    assert same
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in same.items())
    err = capsys.readouterr().err
    assert "statistic/variance/variance 9 is 8 there" in err
    assert "begin anew: " in err


@pytest.mark.slow
def test_the_run_is_a_new_one_and_continues_by_itself(source: Path, tmp_path: Path) -> None:
    folder = run(tmp_path / "run", 2, run__start_from=source, run__seed=7)
    assert load_checkpoint(list_checkpoints(folder / "checkpoints")[-1]).step == 2
    # the key stays in the command, and is not followed again, where the other run has gone too
    run(folder, 4, run__start_from=tmp_path / "gone", run__seed=7)
    whole = run(tmp_path / "whole", 4, run__start_from=source, run__seed=7)
    assert worst_difference(final_state(folder), final_state(whole)) == 0


def test_two_processes_begin_as_one_does(source: Path, processes: Processes, tmp_path: Path) -> None:
    alone = run(tmp_path / "alone", 3, run__start_from=source, run__seed=7)
    command = [*launch_command(2, ROOT / "recipes" / "pvdgan.py"), f"run.dir={tmp_path / 'two'}"]
    done = processes.run([*command, *overrides(training__steps=3, run__start_from=source, run__seed=7)])
    assert done.code == 0, done.err
    assert done.err.count("run.start_from=") == 1
    assert worst_difference(final_state(tmp_path / "two"), final_state(alone)) < 1e-9


@pytest.mark.slow
def test_what_cannot_be_started_from_is_refused(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "damaged"
    for file in (source / "model").iterdir():
        (damaged / "model").mkdir(parents=True, exist_ok=True)
        (damaged / "model" / file.name).write_bytes(file.read_bytes())
    weights = load_file(damaged / "model" / "generator.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, damaged / "model" / "generator.safetensors")
    cut = tmp_path / "cut"
    (cut / "model").mkdir(parents=True)
    (cut / "model" / "config.json").write_bytes((source / "model" / "config.json").read_bytes())
    (cut / "model" / "generator.safetensors").write_bytes(b"text")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    for start, message, changes in (
        (tmp_path / "link", "it is this run's own folder", {}),
        (Path("run"), "it is this run's own folder", {}),
        (tmp_path / "run", "it is this run's own folder", {}),
        (tmp_path / "run" / "model", "it is this run's own folder", {}),
        (tmp_path / "gone", "does not exist", {}),
        (tmp_path, "contains no trained model", {}),
        (damaged, r"network/generator/.* is not finite", {}),
        (cut, "it is damaged", {}),
        (tmp_path, "it has no checkpoint", {"run__start_weights": "raw"}),
        (source, "nothing in it has the name and shape", {
            "network__family": "mlp", "network__widths": "[3]", "latent__dim": 5, "data__name": "clusters",
            "data__shape": "[2]",
        }),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message) as refused:
            run(tmp_path / "run", 2, run__start_from=start, **changes)
        assert str(refused.value).startswith(f"run.start_from={start}: ")
        assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match=r"run\.start_weights=x is not allowed"):
        run(tmp_path / "run", 2, run__start_weights="x")
