"""The commands in messages run as pasted, from where the user is."""

import subprocess
import sys
from pathlib import Path

import pytest

from latentscale.shell_command import shell_command


def program(path: Path, command: str) -> Path:
    """An executable that runs another one with its arguments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The programs of an environment in a clone, in which the user is; the shell finds none of them."""
    python = program(tmp_path / "a clone" / ".venv" / "bin" / "python", f"'{sys.executable}'")
    program(python.with_name("latentscale"), f"'{sys.executable}' -m latentscale")
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(tmp_path / "a clone")
    return python.parent


def version(command: str) -> str:
    """What a command prints in a shell here."""
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout


def test_an_active_environment_has_the_command(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{environment}:/usr/bin:/bin")
    assert shell_command("invert", Path("runs/pvdgan")) == "latentscale invert runs/pvdgan"
    assert version(shell_command("--version")).startswith("latentscale ")


def test_without_the_command_the_environments_python_runs_the_module(environment: Path) -> None:
    assert shell_command("invert", "runs/a") == ".venv/bin/python -m latentscale invert runs/a"
    assert version(shell_command("--version")).startswith("latentscale ")


def test_the_command_of_another_environment_is_not_used(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = program(tmp_path / "other" / "bin" / "latentscale", "false")
    monkeypatch.setenv("PATH", f"{other.parent}:/usr/bin:/bin")
    assert shell_command("methods") == ".venv/bin/python -m latentscale methods"


def test_from_another_folder_the_python_has_its_whole_path(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert shell_command("methods") == f"'{environment / 'python'}' -m latentscale methods"
    assert version(shell_command("--version")).startswith("latentscale ")


def test_a_folder_reached_by_a_link_is_still_below(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "a clone")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "link" / ".venv" / "bin" / "python"))
    assert shell_command("methods") == ".venv/bin/python -m latentscale methods"


def test_arguments_are_quoted(environment: Path) -> None:
    assert shell_command("shards", "verify", "my photos").endswith(" shards verify 'my photos'")


def test_a_link_into_the_environment_is_its_command(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "latentscale").symlink_to(environment / "latentscale")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert shell_command("methods") == "latentscale methods"


def test_a_deleted_folder_is_no_obstacle(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert shell_command("methods") == f"'{environment / 'python'}' -m latentscale methods"
