"""What the fuzz changes: a folder of images, a dataset of shards made of it, and a run that was trained on it."""

import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image

from forked import ForkedProcess
from launching import ROOT, environment, overrides

SIDE = 8
CLASSES = ("cat", "dog")
STEPS = 2


@dataclass(frozen=True)
class Material:
    """The folders, none of which a case writes to."""

    images: Path
    data: Path
    run: Path

    def settings(self, data: Path | None = None, **changes: object) -> list[str]:
        """The arguments of a small run on the dataset."""
        small = {"data__name": "shards", "data__path": data or self.data, "preset": "", "training__precision": "fp32"}
        return overrides(**{**small, "data__shape": "[]", "training__batch": 16, "distributed__streams": 8, **changes})


def make_material(folder: Path) -> Material:
    """Write it; the same on every machine, but for the run's weights."""
    images, data, run = folder / "images", folder / "data", folder / "run"
    random = Random("material")
    for split in ("train", "test"):
        for number in range(16):
            path = images / split / CLASSES[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.frombytes("L", (SIDE, SIDE), random.randbytes(SIDE * SIDE)).save(path)
    material = Material(images, data, run)
    build = ["shards", "build", "folder", str(images), "--out", str(data), "--workers", "0", "--shard-size", "0.01"]
    train = ["train", "pvdgan", f"run.dir={run}", *material.settings(training__steps=STEPS)]
    for arguments in (build, train):
        process = ForkedProcess(product(arguments), folder, case_environment())
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, (arguments, out, err)
    return material


def product(arguments: list[str]) -> list[str]:
    """What follows ``python`` in a command of the product; with a limit of memory, so that no case takes the machine's.

    The limit is above what a forked process has mapped.
    """
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34));"
        " sys.argv[0] = 'latentscale'; runpy.run_module('latentscale', run_name='__main__', alter_sys=True)"
    )
    return ["-c", limited, *arguments]


def recipe(name: str) -> str:
    return str(ROOT / "recipes" / f"{name}.py")


def case_environment(**extra: str) -> dict[str, str]:
    return environment(ACCELERATE_USE_CPU="true", COLUMNS="200", **extra)


PYTHON = sys.executable
