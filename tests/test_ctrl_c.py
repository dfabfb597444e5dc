"""Ctrl-C while a command imports its modules: no traceback, nothing printed, and the exit status of an interrupt."""

import sys
from pathlib import Path

import pytest

from launching import ROOT, Processes

CONSOLE = [str(Path(sys.executable).with_name("latentscale"))]
MODULE = [sys.executable, "-m", "latentscale"]
RECIPE = [sys.executable, str(ROOT / "recipes" / "pvdgan.py")]
INTERRUPTING = """
import importlib.abc, os, signal, sys

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == os.environ["INTERRUPTED_IMPORT"]:
            sys.meta_path.remove(self)
            os.write(2, b"interrupted\\n")
            os.kill(os.getpid(), signal.SIGINT)
        return None

sys.meta_path.insert(0, Interrupting())
"""
"""A sitecustomize by which a process sends itself SIGINT when it begins to import a module."""


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
    + [([*RECIPE, "--dry-run"], "latentscale.training.plan")],
    ids=lambda value: value if isinstance(value, str) else " ".join(Path(part).name for part in value),
)
def test_ctrl_c_during_an_import_ends_the_command_quietly(
    command: list[str], module: str, interrupting: str, processes: Processes, tmp_path: Path
) -> None:
    finished = processes.run(command, tmp_path, interpreter=True, PYTHONPATH=interrupting, INTERRUPTED_IMPORT=module)
    assert (finished.code, finished.out, finished.err) == (130, "", "interrupted\n")


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
