"""An installed wheel is whole: built, installed beside this environment's libraries, used from an empty folder."""

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from latentscale.methods.registry import METHODS
from launching import ROOT, Finished, Processes, free_port, overrides

pytestmark = pytest.mark.slow

BUILT = {"build", "dist", "runs"}


@dataclass
class Installed:
    """An environment with the wheel, and an empty folder to work in."""

    python: Path
    site: Path
    folder: Path
    processes: Processes

    def latentscale(self, *arguments: str) -> Finished:
        return self.processes.run([str(self.python), "-m", "latentscale", *arguments], self.folder)

    def launch(self, launcher: list[str], *arguments: str) -> Finished:
        return self.processes.run([str(self.python), "-m", *launcher, "-m", "latentscale", *arguments], self.folder)


def run(command: list[str], cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel, without the one that lists their checksums."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def build_wheel(source: Path, folder: Path) -> Path:
    """Build the wheel of a source tree, or of an sdist, as `make wheel` does."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    run([*pip, "--wheel-dir", str(folder), str(source)], folder.parent)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this tree, without environments, caches and what was built: a build leaves files beside its sources."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        return {
            name
            for name in names
            if name.startswith(".") or name in BUILT or name.endswith((".egg-info", "__pycache__"))
            or Path(folder, name, "pyvenv.cfg").exists()
        }  # fmt: skip

    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("source") / "tree", ignore=left_out))


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(source, tmp_path_factory.mktemp("wheel") / "built")


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A virtual environment with the wheel; libraries are found in this environment, but not its own latentscale."""
    folder = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder)
    python = folder / "bin" / "python"
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index",
         str(wheel)],
        folder,
    )  # fmt: skip
    # .pth files of a folder that is added in this way, such as that of an editable install, are not read
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python, site


@pytest.fixture
def installed(environment: tuple[Path, Path], tmp_path: Path, processes: Processes) -> Installed:
    return Installed(*environment, tmp_path, processes)


def test_it_holds_the_modules_and_the_data_of_the_top_level_folders(wheel: Path) -> None:
    held = contents(wheel)
    modules = {path.relative_to(ROOT / "platform"): path for path in (ROOT / "platform").rglob("*.py")}
    data = {
        Path("latentscale", path.relative_to(ROOT)): path
        for path in [*(ROOT / "recipes").glob("*.py"), *(ROOT / "recipes" / "presets").glob("*.yaml")]
    }
    typed = {Path("latentscale", "py.typed"): ROOT / "platform" / "latentscale" / "py.typed"}
    expected = {str(name): path.read_bytes() for name, path in {**modules, **data, **typed}.items()}
    found = {name: content for name, content in held.items() if ".dist-info/" not in name}
    assert sorted(found) == sorted(expected)
    assert found == expected


def test_an_sdist_builds_the_same_wheel(wheel: Path, source: Path, tmp_path: Path) -> None:
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    run([sys.executable, "-c", build, str(tmp_path)], source)
    (sdist,) = tmp_path.glob("*.tar.gz")
    assert contents(build_wheel(sdist, tmp_path / "built")) == contents(wheel)


def test_an_editable_install_is_the_import_root_alone(source: Path, tmp_path: Path) -> None:
    build = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
    run([sys.executable, "-c", build, str(tmp_path)], source)
    (editable,) = tmp_path.glob("*.whl")
    held = {name: content for name, content in contents(editable).items() if ".dist-info/" not in name}
    # a static path, and no import hook: type checkers and editors read it too
    assert {content.decode().strip() for content in held.values()} == {str(source / "platform")}
    assert not (source / "platform" / "latentscale" / "recipes").exists()


def test_what_is_used_is_the_installed_package(installed: Installed) -> None:
    code = "import latentscale; print(latentscale.__file__)"
    done = installed.processes.run([str(installed.python), "-c", code], installed.folder)
    assert done.out.strip() == str(installed.site / "latentscale" / "__init__.py")


def test_the_command_and_the_module_are_one(installed: Installed) -> None:
    module = installed.latentscale("--help")
    assert module.code == 0, module.err
    for command in ("train", "invert", "methods", "shards"):
        assert f" {command} " in module.out
    script = installed.processes.run([str(installed.python.with_name("latentscale")), "--help"], installed.folder)
    named = module.out.replace("python -m latentscale", "latentscale")
    assert script.out.split() == named.split()


def test_every_recipe_is_there(installed: Installed) -> None:
    done = installed.latentscale("train", "--help")
    assert done.code == 0, done.err
    (line,) = [line for line in done.out.splitlines() if line.startswith("recipes: ")]
    assert set(line.removeprefix("recipes: ").split()) == set(METHODS)


def test_presets_are_there(installed: Installed) -> None:
    done = installed.latentscale("train", "pvdgan", "--dry-run", "preset=afhq256")
    assert done.code == 0, done.err
    assert "generator: 25,8" in done.out
    assert "data: samples of 3 × 256 × 256, not available here" in done.out
    refused = installed.latentscale("train", "pvdgan", "preset=afhq")
    assert refused.code == 2
    assert "afhq256" in refused.err
    assert refused.err.count("\n") == 1
    assert not list(installed.folder.iterdir())


ACCELERATE = ["accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_machines", "1", "--num_processes",
              "2", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port"]  # fmt: skip
TORCHRUN = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port"]


@pytest.mark.parametrize("launcher", [ACCELERATE, TORCHRUN], ids=["accelerate", "torchrun"])
def test_two_processes_train_and_the_model_is_used(launcher: list[str], installed: Installed) -> None:
    settings = overrides(training__steps=3, run__dir="run", distributed__processes=2)
    done = installed.launch([*launcher, str(free_port())], "train", "pvdgan", *settings)
    assert done.code == 0, done.err[-4000:]
    assert "trained pvdgan for 3 steps: run" in done.out
    Image.fromarray((load_digits().images[0] * 15.9).astype("uint8")).save(installed.folder / "digit.png")
    inverted = installed.latentscale("invert", "run", "digit.png", "--device", "cpu")
    assert inverted.code == 0, inverted.err
    assert (installed.folder / "inverted" / "latents.npz").is_file()


def test_data_workers_start_under_the_module(installed: Installed) -> None:
    """Their processes find again what the main one was started with."""
    settings = overrides(training__steps=3, run__dir="run", data__workers=1)
    done = installed.latentscale("train", "pvdgan", *settings)
    assert done.code == 0, done.err[-4000:]
    assert "trained pvdgan for 3 steps: run" in done.out
    assert [path.name for path in installed.folder.iterdir()] == ["run"]
