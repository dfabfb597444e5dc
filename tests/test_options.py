"""Options that are declared once, as dataclass fields: the command line, the checks and the documentation."""

import sys
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from latentscale.building.build_options import BuildOptions, ImageOptions
from latentscale.commands.app import COMMANDS, app
from latentscale.commands.option_parameters import with_options
from latentscale.errors import UserError
from latentscale.options import documented, flag, from_command_line, option
from latentscale.processors import processors
from latentscale.sources.registry import SOURCES
from latentscale.sources.source_options import Panel, SourceOptions
from launching import Processes

KINDS: tuple[type[Any], ...] = (SourceOptions, ImageOptions, BuildOptions)
ARGUMENTS = {"source", "path", "out"}


@documented
@dataclass(frozen=True)
class Paint:
    """How to paint."""

    coats: int = option(1, "Number of coats.", panel="Paint", unit="coats", minimum=1, maximum=3)
    tones: tuple[str, ...] = option("red", "Tones.", panel="Paint", parse=lambda text: tuple(text.split("+")))
    dry: bool | None = option(None, "Let it dry.", panel="Time", name="let_dry")
    fast: bool = option(False, "Hurry.", panel="Time")
    width: float = option(0.0, "Width of the brush.", panel="Paint", unit="mm", minimum=0.5)


@dataclass(frozen=True)
class Varnish:
    coats: int = option(1, "Number of coats of varnish.", panel="Paint", minimum=1)


def declared() -> dict[str, Field[Any]]:
    return {spec.name: spec for kind in KINDS for spec in fields(kind)}


def build_parameters() -> Mapping[str, Any]:
    """The parameters of ``shards build`` as the command line has them, by name."""
    build = COMMANDS["shards"].load("shards").commands["build"]
    return {parameter.name: parameter for parameter in build.params}


def test_every_field_is_an_option_of_shards_build_and_nothing_else_is() -> None:
    parameters = build_parameters()
    assert parameters.keys() == declared().keys() | ARGUMENTS
    for name, spec in declared().items():
        parameter = parameters[name]
        assert flag(spec) in parameter.opts, name
        assert parameter.help == spec.metadata["help"]
        assert parameter.default == spec.metadata["typed_default"], name
        assert parameter.rich_help_panel == spec.metadata["panel"]
        assert not parameter.required


def test_the_help_shows_every_option_with_its_help_default_and_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 400)  # it reads the environment only once
    result = CliRunner().invoke(app, ["shards", "build", "--help"])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    for spec in declared().values():
        meta = spec.metadata
        assert meta["help"], spec.name
        [line] = [line for line in lines if line.startswith(f"│ {flag(spec)} ")]
        assert meta["help"] in line
        typed = meta["typed_default"]
        if meta["default_text"]:
            assert f"[default: ({meta['default_text']})]" in line
        elif typed is True:
            assert f"[default: {spec.name}]" in line
        elif typed not in (None, "", False) or (typed == 0 and typed is not False):
            assert f"[default: {typed}]" in line
        for bound in (meta["minimum"], meta["maximum"]):
            assert bound is None or f"{bound:g}" in line
        for choice in meta["choices"]:
            assert str(choice) in line
    titles = [line.split("─ ")[1].split(" ─")[0] for line in lines if line.startswith("╭─ ")]
    assert titles == ["Arguments", "Options", *Panel]


def test_without_options_the_command_line_gives_the_classes_defaults() -> None:
    typed = {name: spec.metadata["typed_default"] for name, spec in declared().items()}
    for kind in KINDS:
        assert from_command_line(kind, typed) == kind()


def test_the_help_is_the_documentation_of_the_classes() -> None:
    for kind in KINDS:
        for spec in fields(kind):
            assert f"\n    {spec.name}: {spec.metadata['help']}" in (kind.__doc__ or "")
    assert (Paint.__doc__ or "").startswith("How to paint.\n\nAttributes:\n    coats: Number of coats.\n")


def test_every_option_of_sources_is_used_by_one() -> None:
    # the order of any source is drawn by the seed
    used = frozenset[str]().union(*(source.uses for source in SOURCES.values()))
    assert {spec.name for spec in fields(SourceOptions)} == used | {"seed"}


def test_a_command_takes_the_options_as_dataclasses() -> None:
    seen: list[Any] = []

    @with_options(["Paint", "Time"])
    def paint(wall: Annotated[str, typer.Argument()], *, how: Paint) -> None:
        seen.extend((wall, how))

    painter = typer.Typer()
    painter.command()(paint)
    runner = CliRunner()
    arguments = ["north", "--coats", "2", "--tones", "blue+grey", "--no-let-dry", "--fast", "--width", "0.5"]
    assert runner.invoke(painter, arguments).exit_code == 0
    assert seen == ["north", Paint(coats=2, tones=("blue", "grey"), dry=False, fast=True, width=0.5)]
    assert runner.invoke(painter, ["north", "--no-fast"]).exit_code == 2


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"coats": 0}, "--coats 0 is not allowed: it must be >= 1 and <= 3 coats"),
        ({"coats": 4}, "--coats 4 is not allowed: it must be >= 1 and <= 3 coats"),
        ({"width": 0.25}, "--width 0.25 is not allowed: it must be >= 0.5 mm"),
        ({"width": float("nan")}, "--width nan is not allowed: it must be a finite number >= 0.5 mm"),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_line(typed: dict[str, Any], message: str) -> None:
    # the default is allowed, although it is below the range
    typed = {"coats": 1, "tones": "red", "dry": None, "fast": False, "width": 0.0, **typed}
    with pytest.raises(UserError) as refused:
        from_command_line(Paint, typed)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ImageOptions(channels=2), "--channels 2 is not allowed: it must be one of 0, 1, 3"),
        (ImageOptions(fit="round"), "--fit round is not allowed: it must be one of crop, stretch"),
        (ImageOptions(png_compression=10), "--png-compression 10 is not allowed: it must be >= 0 and <= 9"),
        (ImageOptions(resolution=-1), "--resolution -1 is not allowed: it must be >= 0 and <= 8192 pixels"),
        (ImageOptions(resolution=16, pad=8), "--pad 8 is smaller than --resolution 16: images would not fit"),
        (SourceOptions(split="half"), "--split half is not allowed: it must be one of published, all, none"),
        (SourceOptions(count=-1), "--count -1 is not allowed: it must be >= 0 points"),
        (BuildOptions(max_errors=-1), "--max-errors -1 is not allowed: it must be >= 0 images"),
    ],
)
def test_options_from_code_are_checked_too(options: Any, message: str) -> None:
    with pytest.raises(UserError) as refused:
        options.check()
    assert str(refused.value) == message


def test_two_declarations_of_one_option_are_refused() -> None:
    def paint(*, how: Paint, over: Varnish) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match=r"Varnish\.coats is declared twice, and differently"):
        with_options(["Paint", "Time"])(paint)


def test_declaring_the_options_imports_no_heavy_library(processes: Processes) -> None:
    code = "import sys, latentscale.commands.app; print(sys.modules.keys() & {'numpy', 'torch', 'PIL'})"
    finished = processes.run([sys.executable, "-c", code], interpreter=True)
    assert finished.out == "set()\n", finished.err


def test_without_workers_each_cpu_gets_a_process() -> None:
    assert BuildOptions().processes == processors()
    assert BuildOptions(workers=0).processes == 0
