"""The documents' code blocks and shell commands, and how each kind of command is checked."""

import importlib.util
import os
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser
from packaging.requirements import Requirement
from torch.distributed.run import get_args_parser

from latentscale.commands.train import load_recipe
from latentscale.recipe import dry_run, load
from launching import ROOT, Finished, Processes

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "launchers" / "README.md",
    *(ROOT / "docs").glob("*.md"),
]
LANGUAGES = {"bash", "diff", "python", "text", "toml", "yaml"}
PROGRAMS = (
    "python", "latentscale", "accelerate", "torchrun", "make", "pip", "sbatch", "sudo", "git", "source", "pre-commit",
    "launchers/torchrun.sh",
)  # fmt: skip
# what a reader puts in
PLACEHOLDERS = {"K": "0", "HOST_OF_0": "127.0.0.1"}
LEFT_OUT = {"…", "key=value"}
STARTED: set[tuple[str, ...]] = set()
"""The kinds of command that have been started as they are written."""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: number of its first line, from 1.
    """

    document: Path
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A shell command.

    Attributes:
        place: document and line, for messages.
        line: its number, from 1.
        whole: whether the reader adds no settings, so that all of them can be checked together.
    """

    place: str
    line: int
    argv: tuple[str, ...]
    whole: bool


def blocks(document: Path) -> Iterator[Block]:
    """The fenced blocks of a document."""
    lines = document.read_text(encoding="utf-8").splitlines()
    start, language = 0, ""
    for number, line in enumerate(lines, 1):
        if not line.startswith("```"):
            continue
        if start:
            yield Block(document, start, language, "".join(f"{text}\n" for text in lines[start - 1 : number - 1]))
            start = 0
        else:
            start, language = number + 1, line.removeprefix("```")
    assert not start, f"{document}:{start}: a block without an end"


def commands(document: Path) -> list[Command]:
    """The commands of the bash blocks, in their order, and those in the cells of tables."""
    found = []
    name = document.relative_to(ROOT)
    for block in blocks(document):
        if block.language != "bash":
            continue
        text = block.text.replace("\\\n", " ")
        for offset, line in enumerate(text.splitlines()):
            for part in line.split("&&"):
                if argv := filled(part):
                    found.append(Command(f"{name}:{block.line + offset}", block.line + offset, argv, "…" not in part))
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("|"):
            for span in re.findall(r"`([^`]+)`", line):
                if (argv := filled(span)) and argv[0] in PROGRAMS:
                    found.append(Command(f"{name}:{number}", number, argv, "…" not in span))
    return found


def filled(text: str) -> tuple[str, ...]:
    """The words of a command, with a value for each placeholder."""
    return tuple(PLACEHOLDERS.get(word, word) for word in shlex.split(text, comments=True) if word not in LEFT_OUT)


@cache
def printed(argv: tuple[str, ...]) -> Finished:
    """Run a command that reads nothing of a reader's; several documents may have it."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return Processes().run(argv, PATH=path)


def run_files() -> list[str]:
    """The files of a run's folder that docs/run-folder.md lists."""
    page = ROOT / "docs" / "run-folder.md"
    return re.findall(r"^\| `([^`]+)` \|", page.read_text(encoding="utf-8"), re.MULTILINE)


def run_folder_rows(folder: Path) -> set[str]:
    """The rows of docs/run-folder.md that describe what a run left in its folder.

    Raises:
        AssertionError: when a file has no row, or several.
    """
    rows = run_files()
    kinds = {"STEP": r"\d{9}", "NETWORK": "[a-z_]+", "/$": "/.+"}
    patterns = {}
    for row in rows:
        pattern = re.escape(row) + "$" * row.endswith("/")
        for word, kind in kinds.items():
            pattern = pattern.replace(word, kind)
        patterns[row] = re.compile(pattern)
    found = set()
    for path in folder.rglob("*"):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            # statistics.safetensors is not a network's
            described = [name] if name in rows else [row for row in rows if patterns[row].fullmatch(name)]
            assert len(described) == 1, f"{name} has {len(described)} rows in docs/run-folder.md"
            found.update(described)
    return found


class Workplace:
    """A clone as a reader has it, with data in it, where commands are checked.

    Every command has the arguments that are written. The first of each kind is started by an interpreter of its own; a
    later one may be forked from a process that has imported the package.

    Args:
        folder: stands for the clone.
        processes: a starter of processes.
        as_written: start every command by an interpreter of its own.
    """

    def __init__(self, folder: Path, processes: Processes, patch: pytest.MonkeyPatch, as_written: bool = False) -> None:
        self.folder = folder
        self.processes = processes
        self.patch = patch
        self.as_written = as_written
        self.whole = True
        bin_folder = Path(sys.executable).parent
        scripts = folder.with_name("scripts")
        scripts.mkdir(exist_ok=True)
        (scripts / "scontrol").write_text("#!/bin/sh\necho node-a\n")
        (scripts / "scontrol").chmod(0o755)
        self.path = f"{scripts}:{bin_folder}:{os.environ['PATH']}"
        for name in ("recipes", "launchers", "Makefile", "pyproject.toml", "constraints.txt", "tests", "platform"):
            (folder / name).symlink_to(ROOT / name)

    def run(self, argv: Sequence[str], **environment: str) -> Finished:
        """Run a command for real."""
        if {"--help", "methods", "metrics"} & set(argv):
            return printed(tuple(argv))
        command = list(argv)
        # python's -m or script, and the program's command; that of shards has commands of its own
        kind = tuple(command[: 3 if {"-m", "shards"} & set(command[:2]) else 2])
        if self.as_written or kind not in STARTED:
            STARTED.add(kind)
        elif program := shutil.which(command[0], path=self.path):
            command[0] = program
        return self.processes.run(command, self.folder, PATH=self.path, **environment)

    def output(self, argv: Sequence[str], **environment: str) -> str:
        """What a command prints; it must succeed."""
        done = self.run(argv, **environment)
        assert done.code == 0, f"{shlex.join(argv)}\n{done.out}{done.err}"
        return done.out

    def check(self, command: Sequence[str], whole: bool = True) -> None:
        """Run a command if that is cheap; else check its arguments as far as it takes them.

        Args:
            whole: whether the number of processes must suit the settings.

        Raises:
            AssertionError: when the command fails, or is of no kind that is known here.
        """
        self.whole = whole
        argv = ["python" if word == sys.executable else word for word in command]
        match argv:
            case ["git", "clone", "latentscale"] | ["cd", "latentscale"] | ["pre-commit", "install"]:
                pass
            case ["source", script]:
                makefile = (ROOT / "Makefile").read_text()
                assert f"VENV ?= {script.removesuffix('/bin/activate')}\n" in makefile
            case ["make", *arguments]:
                self.output(["make", "--dry-run", *arguments])
            case ["pip", "install", *arguments]:
                self._check_requirements(arguments)
            case ["latentscale", "train", recipe, *arguments]:
                self._check_training(recipe, arguments)
            case ["latentscale", *arguments] if any("://" in word for word in arguments):
                # a bucket is not at hand: the command must take its arguments, and fail to reach that alone
                done = self.run([*argv, "--help"])
                assert done.code == 0
            case ["latentscale" | "mkdir" | "tar", *_]:
                self.output(argv)
            case ["python", "-m", "pytest", *arguments]:
                self.output(["python", "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments])
            case ["python", "-m", "latentscale.launching.node", *arguments]:
                self.check(shlex.split(self.output([*argv[:3], "--dry-run", *arguments])), whole)
            case ["python", "-m", "latentscale", *arguments]:
                self.check(["latentscale", *arguments], whole)
            case ["python", "-m", "accelerate.commands.accelerate_cli", *arguments]:
                self.check(["accelerate", *arguments], whole)
            case ["python", "launchers/kubernetes.py", *arguments]:
                self.check(shlex.split(self.output([*argv[:2], "--dry-run", *arguments])), whole)
            case ["sudo", "python", "launchers/localcluster.py", *arguments]:
                self._check_local_cluster(arguments)
            case ["python", script, *arguments]:
                self._check_script(script, arguments)
            case ["accelerate", "launch", *arguments]:
                self._check_accelerate(arguments)
            case ["torchrun", *arguments]:
                options = get_args_parser().parse_args(arguments)
                count = int(options.nproc_per_node) * int(options.nnodes.partition(":")[0])
                self._check_launched(options.training_script, options.training_script_args, options.module, count)
            case ["launchers/torchrun.sh", *arguments]:
                self.check(shlex.split(self.output([argv[0], "--dry-run", *arguments])), whole)
            case ["sbatch", *arguments]:
                self._check_slurm(arguments)
            case _:
                raise AssertionError(f"no check is known for: {shlex.join(argv)}")

    def _check_requirements(self, arguments: Sequence[str]) -> None:
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        words = iter(arguments)
        for word in words:
            if word == "-c":
                assert (ROOT / next(words)).is_file()
            elif word != "-e":
                name, bracket, extras = word.partition("[")
                assert name in (".", "latentscale"), word
                assert Requirement(f"latentscale{bracket}{extras}").extras <= set(known), word

    def _check_script(self, script: str, arguments: Sequence[str]) -> None:
        assert (self.folder / script).is_file(), script
        if "--help" in arguments or "--dry-run" in arguments:
            self.output(["python", script, *arguments])
        else:
            self._check_launched(script, arguments, False, 1)

    def _check_launched(self, script: str, arguments: Sequence[str], module: bool, count: int) -> None:
        if module:
            assert (script, arguments[0]) == ("latentscale", "train")
            recipe, overrides = arguments[1], arguments[2:]
        else:
            assert (self.folder / script).is_file(), script
            assert Path(script).parent == Path("recipes")
            recipe, overrides = Path(script).stem, arguments
        self._check_training(recipe, overrides, count)

    def _check_training(self, name: str, overrides: Sequence[str], count: int = 1) -> None:
        if overrides and not all("=" in word for word in overrides):
            self.output(["latentscale", "train", name, *overrides])
            return
        recipe = load_recipe(name)
        with self.patch.context() as patch:
            patch.chdir(self.folder)
            for variable in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
                patch.setenv(variable, str(count if self.whole else 1))
            for variable in ("RANK", "LOCAL_RANK"):
                patch.setenv(variable, "0")
            config = load(recipe.METHOD, recipe.DEFAULTS, overrides, ROOT / "recipes" / "presets")
            assert "step plan: " in dry_run(config, recipe.METHOD)

    def _check_accelerate(self, arguments: Sequence[str]) -> None:
        options = launch_command_parser().parse_args(arguments)
        count = options.num_processes
        if options.config_file:
            written = yaml.safe_load((self.folder / options.config_file).read_text())
            count = count or written["num_processes"]
        self._check_launched(options.training_script, options.training_script_args, options.module, count or 1)

    def _check_local_cluster(self, arguments: Sequence[str]) -> None:
        spec = importlib.util.spec_from_file_location("localcluster_script", ROOT / "launchers" / "localcluster.py")
        assert spec is not None
        assert spec.loader is not None
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        with self.patch.context() as patch:
            patch.setattr(sys, "argv", ["launchers/localcluster.py", *arguments])
            options = script.parse()
        self._check_launched(options.command[0], options.command[1:], False, options.nodes * options.processes)

    def _check_slurm(self, arguments: Sequence[str]) -> None:
        script = arguments.index("launchers/slurm/train.sbatch")
        options = dict(zip(arguments[:script:2], arguments[1:script:2], strict=True))
        assert set(options) <= {"--nodes", "--gpus-per-node", "--time", "--signal"}
        nodes, gpus = options.get("--nodes", "1"), options.get("--gpus-per-node", "1")
        job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node-a", "DRY_RUN": "1"}
        words = shlex.split(self.output(["bash", *arguments[script:]], **job))
        launcher = words.index("-m")
        assert words[launcher + 1] == "latentscale.launching.slurm"
        step = {"SLURM_NNODES": nodes, "SLURM_NODEID": "0", "SLURM_GPUS_ON_NODE": gpus}
        printed = self.output(["python", "-m", words[launcher + 1], "--dry-run", *words[launcher + 2 :]], **step)
        self.check(shlex.split(printed), self.whole)
