"""Checkpoints are complete or absent, the newest stay, and damage is named."""

from pathlib import Path

import pytest
import torch

from latentscale.config import load_config
from latentscale.errors import UserError
from latentscale.methods.pvdgan import PVDGANSettings
from latentscale.training.checkpoints import Checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from latentscale.training.run_folder import RunFolder


def save(folder: Path, step: int, keep: int = 2) -> Path:
    return save_checkpoint(folder, Checkpoint(step, {"a": torch.full((3,), float(step))}, {"training": {}}, {}), keep)


def test_the_newest_are_kept_and_read_back(tmp_path: Path) -> None:
    for step in (1, 20, 1_000_000_000):
        save(tmp_path, step)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000000020", "step-1000000000"]
    loaded = load_checkpoint(list_checkpoints(tmp_path)[0])
    assert loaded.step == 20
    assert loaded.tensors["a"].tolist() == [20.0] * 3


def test_what_a_kill_leaves_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 5)
    partial = tmp_path / ".partial-step-000000010"
    partial.mkdir()
    (partial / "state.safetensors").write_bytes(b"half")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000000005"]
    save(tmp_path, 10)  # the same step again after the resume
    assert load_checkpoint(tmp_path / "step-000000010").tensors["a"].tolist() == [10.0] * 3
    assert not partial.exists()


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_damage_is_named(tmp_path: Path, damage: str) -> None:
    path = save(tmp_path, 5)
    victim = path / "state.safetensors"
    if damage == "truncate":
        victim.write_bytes(victim.read_bytes()[:-4])
    else:
        victim.unlink()
    with pytest.raises(UserError, match="step-000000005 cannot be read"):
        load_checkpoint(path)


RUN = {"method": "pvdgan", "data": "fingerprint"}


def config(folder: Path, *arguments: str):
    return load_config(PVDGANSettings, "pvdgan", None, [f"run.dir={folder}", *arguments])


def test_a_changed_setting_is_refused_by_name(tmp_path: Path) -> None:
    first = config(tmp_path / "run")
    folder = RunFolder(first, RUN)
    save_checkpoint(folder.checkpoints, Checkpoint(7, {}, first.to_dict(), RUN), keep=1)
    folder.close()
    again = RunFolder(config(tmp_path / "run", "training.steps=77"), RUN)
    assert again.resumed is not None
    assert again.resumed.step == 7
    again.close()
    with pytest.raises(UserError, match=r"method\.r1: 3\.0 → 5\.0.*run\.restart=true"):
        RunFolder(config(tmp_path / "run", "method.r1=5"), RUN)
    # a refusal leaves what the run was started with
    assert "r1: 3.0" in (tmp_path / "run" / "config.yaml").read_text()


def test_restart_moves_the_old_run_aside(tmp_path: Path) -> None:
    first = config(tmp_path / "run")
    folder = RunFolder(first, RUN)
    save_checkpoint(folder.checkpoints, Checkpoint(7, {}, first.to_dict(), RUN), keep=1)
    folder.close()
    for number in (1, 2):
        fresh = RunFolder(config(tmp_path / "run", "run.restart=true", "method.r1=5"), RUN)
        assert fresh.resumed is None
        assert fresh.moved_to == tmp_path / f"run.old-{number}"
        fresh.close()
    assert load_checkpoint(tmp_path / "run.old-1" / "checkpoints" / "step-000000007").step == 7


def test_one_folder_serves_one_run(tmp_path: Path) -> None:
    folder = RunFolder(config(tmp_path / "run"), RUN)
    with pytest.raises(UserError, match="in use"):
        RunFolder(config(tmp_path / "run"), RUN)
    folder.close()
    RunFolder(config(tmp_path / "run"), RUN).close()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"thesis\.txt but no run"):
        RunFolder(config(tmp_path), RUN)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(("what", "other"), [("method", "msegan"), ("data", "another fingerprint")])
def test_another_method_or_other_data_are_refused(tmp_path: Path, what: str, other: str) -> None:
    first = config(tmp_path / "run")
    folder = RunFolder(first, RUN)
    save_checkpoint(folder.checkpoints, Checkpoint(7, {}, first.to_dict(), RUN), keep=1)
    folder.close()
    with pytest.raises(UserError, match=f"{what}: {RUN[what]} → {other}"):
        RunFolder(first, {**RUN, what: other})


def test_a_launchers_restart_continues_instead_of_starting_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = config(tmp_path / "run", "run.restart=true")
    folder = RunFolder(first, RUN)
    save_checkpoint(folder.checkpoints, Checkpoint(7, {}, first.to_dict(), RUN), keep=1)
    folder.close()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    again = RunFolder(first, RUN)
    assert again.resumed is not None
    assert again.moved_to is None
    again.close()


def test_a_kill_before_the_first_line_was_written_leaves_a_usable_folder(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".config.yaml.new-123").touch()
    RunFolder(config(tmp_path), RUN).close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/run cannot be written"):
        RunFolder(config(tmp_path / "file" / "run"), RUN)
