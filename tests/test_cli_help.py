"""``latentscale --help``: the list of commands, which imports none of them."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from latentscale.commands.app import COMMANDS, app
from latentscale.errors import UserError
from launching import Processes


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 200)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_is_the_first_line_of_the_commands_own_help(name: str) -> None:
    own = COMMANDS[name].load(name).help.strip().partition("\n\n")[0]
    assert " ".join(own.split()) == COMMANDS[name].summary
    assert COMMANDS[name].summary in " ".join(CliRunner().invoke(app, ["--help"]).output.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_prints_its_own_help(name: str) -> None:
    for flag in ("-h", "--help"):
        result = CliRunner().invoke(app, [name, flag])
        assert result.exit_code == 0
        assert f"latentscale {name} [OPTIONS]" in result.output
        assert COMMANDS[name].summary in " ".join(result.output.split())


@pytest.mark.parametrize("name", ["invert", "shards"])
def test_without_arguments_a_command_that_needs_some_prints_its_help(name: str) -> None:
    result = CliRunner().invoke(app, [name])
    assert result.exit_code == 2
    assert COMMANDS[name].summary in " ".join(result.output.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["invert", "FILE", "FILE"],
        ["invert", "FILE", "FILE", "--out", "FILE"],
        ["shards", "build", "zip", "FILE", "--out", "new"],
        ["shards", "build", "folder", "FILE", "--out", "FILE"],
        ["shards", "split", "FILE", "--out", "FILE", "--folds", "2", "--fold", "0"],
        ["shards", "info", "FILE", "--picture", "FILE"],
        ["shards", "verify", "FILE"],
    ],
)
def test_paths_are_checked_by_what_reads_them(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # where this user may not read a file, typer would end in a box and in words of its own
    monkeypatch.setattr("os.access", lambda *arguments, **options: False)
    (tmp_path / "file").write_text("text")
    result = CliRunner().invoke(app, [word.replace("FILE", str(tmp_path / "file")) for word in arguments])
    assert isinstance(result.exception, UserError)


def test_an_unknown_command_is_refused_with_the_nearest() -> None:
    result = CliRunner().invoke(app, ["shard"])
    assert result.exit_code == 2
    assert "Did you mean 'shards'?" in result.output


def test_help_imports_none_of_the_commands_modules(processes: Processes) -> None:
    code = (
        "import sys; sys.argv = ['latentscale', '--help']\n"
        "from latentscale.cli import main\n"
        "try: main()\n"
        "finally: print(sorted(name for name in sys.modules if name.startswith('latentscale')), file=sys.stderr)"
    )
    finished = processes.run([sys.executable, "-c", code], interpreter=True)
    assert finished.code == 0
    assert finished.err.strip() == str(
        [
            "latentscale",
            "latentscale.cli",
            "latentscale.commands",
            "latentscale.commands.app",
            "latentscale.errors",
            "latentscale.local_paths",
            "latentscale.standard_streams",
            "latentscale.wording",
        ]
    )
