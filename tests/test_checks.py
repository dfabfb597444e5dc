"""What pre-commit runs is what `make check` runs, and so what lands or rejects a change."""

import subprocess
from typing import Any

import yaml

from launching import ROOT


def hooks() -> list[dict[str, Any]]:
    content = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (repository,) = content["repos"]
    # nothing is downloaded: the tools are those of the environment
    assert repository["repo"] == "local"
    return list(repository["hooks"])


def test_pre_commit_runs_the_commands_of_make_check() -> None:
    dry = ["make", "--dry-run", "--always-make", "--no-print-directory", "check", "VENV=.venv", "PYTHON=true"]
    printed = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    checks = [line for line in printed.splitlines() if line.startswith((".venv/bin/ruff", ".venv/bin/mypy"))]
    assert [hook["entry"] for hook in hooks()] == checks
    assert len(checks) == 3


def test_every_hook_is_one_that_pre_commit_takes() -> None:
    for hook in hooks():
        assert {"id", "name", "entry", "language"} <= set(hook)
        # the commands name what they check; pre-commit must not add the changed files
        assert (hook["language"], hook["pass_filenames"]) == ("system", False)
    assert len({hook["id"] for hook in hooks()}) == len(hooks())


def test_the_project_is_checked_as_it_lands() -> None:
    assert "make check\nmake test\n" in (ROOT / ".ci" / "run").read_text()
