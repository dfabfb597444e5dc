"""Ctrl-C while a command imports its modules: no traceback, nothing printed, and the exit status of an interrupt."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launching import ROOT, Processes

CONSOLE = [str(Path(sys.executable).with_name("latentscale"))]
MODULE = [sys.executable, "-m", "latentscale"]
RECIPE = [sys.executable, str(ROOT / "recipes" / "pvdgan.py")]
COMMAND_LINES = ("cli.py", "recipe.py", "progress_bar.py")
INTERRUPTING = """
import importlib.abc, os, signal, sys, time

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == os.environ["INTERRUPTED_IMPORT"]:
            sys.meta_path.remove(self)
            os.write(2, b"interrupted\\n")
            try:
                signal.raise_signal(signal.SIGINT)
                time.sleep(0.01)
            except KeyboardInterrupt as error:
                if name in os.environ.get("BY_LIBRARIES", "").split():
                    raise
                raise ImportError(name) from error
        return None

sys.meta_path.insert(0, Interrupting())
"""
"""A sitecustomize by which a process sends itself SIGINT when it begins to import a module.

A KeyboardInterrupt comes out as another error, as it does of a compiled module. BY_LIBRARIES has the modules, none of
them compiled, that libraries import late.
"""


@pytest.fixture
def interrupting(tmp_path: Path) -> str:
    """A folder for PYTHONPATH."""
    folder = tmp_path / "interrupting"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(INTERRUPTING)
    return str(folder)


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (start + arguments, module)
        for start in (CONSOLE, MODULE)
        for arguments, modules in (
            (["--help"], ("latentscale.commands.app", "typer", "rich.table")),
            (["methods"], ("torch",)),
            (["invert", "run", "photo.png"], ("torch", "torch._C", "latentscale.inversion.inverter")),
            (["train", "--help"], ("latentscale.commands.train",)),
            (["train", "pvdgan"], ("latentscale.recipe", "torch", "torch.optim", "latentscale.methods.pvdgan")),
        )
        for module in modules
    ]
    + [
        (RECIPE, module)
        for module in ("torch", "numpy", "torch._C", "torch.optim", "latentscale.methods.pvdgan", "latentscale.recipe")
    ]
    + [
        ([*RECIPE, "--dry-run"], "latentscale.training.plan"),
        ([*RECIPE, "data.path=photos"], "latentscale.own_data"),
    ]
    + [
        ([*CONSOLE, *arguments.split()], module)
        for arguments, module in (
            ("methods", "latentscale.commands.methods"),
            ("methods", "latentscale.methods.description"),
            ("metrics", "latentscale.evaluation.registry"),
            ("shards build digits --out data", "latentscale.building.build_dataset"),
            ("shards info data", "latentscale.storage.remote"),
            ("shards info data", "latentscale.shards.dataset_folders"),
            ("shards split data --out folds --folds 2 --fold 0", "latentscale.shards.splitting"),
            ("shards verify data", "rich.progress"),
            ("shards verify data", "latentscale.shards.verifying"),
        )
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(Path(part).name for part in value),
)
def test_ctrl_c_during_an_import_ends_the_command_quietly(
    command: list[str], module: str, interrupting: str, processes: Processes, tmp_path: Path
) -> None:
    finished = processes.run(
        command,
        tmp_path,
        interpreter=True,
        PYTHONPATH=interrupting,
        INTERRUPTED_IMPORT=module,
        BY_LIBRARIES="rich.table",
    )
    assert (finished.code, finished.out, finished.err) == (130, "", "interrupted\n")


def late_imports(function: ast.FunctionDef) -> Iterator[str]:
    """What a function imports, but for the standard library, that a Ctrl-C would interrupt with a traceback."""
    inside = {
        each
        for block in ast.walk(function)
        if isinstance(block, ast.With) and ast.unparse(block.items[0]) == "interruptible_imports()"
        for each in ast.walk(block)
    }
    for each in ast.walk(function):
        if isinstance(each, ast.Import | ast.ImportFrom) and each not in inside:
            name = each.module or "" if isinstance(each, ast.ImportFrom) else each.names[0].name
            if name.partition(".")[0] not in sys.stdlib_module_names:
                yield name


def test_every_late_import_of_a_command_is_interruptible() -> None:
    package = ROOT / "platform" / "latentscale"
    found = {
        f"{path.stem}.{function.name}: {module}"
        for path in [*(package / "commands").glob("*.py"), *map(package.joinpath, COMMAND_LINES)]
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for module in late_imports(function)
    }
    # a Ctrl-C during this one is a stop before the first step
    assert found == {"recipe._train: latentscale.training.loop"}


def test_the_training_loops_import_is_a_stop_before_the_first_step(
    interrupting: str, processes: Processes, tmp_path: Path
) -> None:
    finished = processes.run(
        [*RECIPE, f"run.dir={tmp_path / 'run'}"],
        interpreter=True,
        PYTHONPATH=interrupting,
        INTERRUPTED_IMPORT="latentscale.training.loop",
    )
    assert (finished.code, finished.err) == (0, "interrupted\n")
    assert finished.out == "stopped before the first step: run the same command to continue\n"


def test_a_program_that_ignores_ctrl_c_is_not_ended_by_one(processes: Processes, interrupting: str) -> None:
    program = f"""
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.argv = ["pvdgan.py", "--help"]
runpy.run_path({str(ROOT / "recipes" / "pvdgan.py")!r}, run_name="__main__")
"""
    finished = processes.run(
        [sys.executable, "-c", program], interpreter=True, PYTHONPATH=interrupting, INTERRUPTED_IMPORT="torch"
    )
    assert (finished.code, finished.err) == (0, "interrupted\n")
    assert "usage:" in finished.out


def test_after_the_imports_ctrl_c_is_pythons_again(processes: Processes) -> None:
    program = """
import signal, threading
from latentscale.errors import interruptible_imports
def imports():
    with interruptible_imports():
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
imports()
thread = threading.Thread(target=imports)
thread.start()
thread.join()
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    finished = processes.run([sys.executable, "-c", program])
    assert (finished.code, finished.err) == (0, "")
    assert finished.out.split() == ["False", "True", "True"]
