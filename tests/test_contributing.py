"""CONTRIBUTING's examples: a copy of the package gets their files and edits, and uses them for real."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from launching import ROOT, Finished, Processes, overrides
from worked_examples import METRIC_TEST, apply_metric, apply_section, copy_code, patched

# mypy without a cache takes minutes on a busy machine
CHECK_SECONDS = 600


class Example:
    """A copy of the code with a section's files and edits in it.

    Args:
        section: the heading.
        folder: of the copy.
    """

    def __init__(self, section: str, folder: Path, processes: Processes) -> None:
        self.folder, self.processes = folder, processes
        copy_code(folder)
        self.tests = apply_section(section, folder)

    def run(self, *argv: str) -> Finished:
        """Run Python in the copy; it must end well."""
        helpers = [ROOT / "tests", ROOT / "tests" / "sources", ROOT / "tests" / "methods"]
        paths = ":".join(map(str, [self.folder / "platform", *helpers]))
        done = self.processes.run([sys.executable, *argv], self.folder, copy=paths)
        assert done.code == 0, done.out + done.err
        return done

    def check_tests(self, count: int) -> None:
        """The section's own tests pass."""
        found = self.run("-m", "pytest", "-n0", "-p", "no:cacheprovider", *self.tests)
        assert f"{count} passed" in found.out, found.out


def test_a_difference_is_added_where_it_says() -> None:
    assert patched("a\nb\nc\n", " a\n+x\n+y\n@@\n c\n+z\n") == "a\nx\ny\nb\nc\nz\n"
    with pytest.raises(AssertionError):
        patched("a\na\n", " a\n+x\n")


def test_the_source_builds_a_dataset_and_passes_its_test(tmp_path: Path, processes: Processes) -> None:
    example = Example("Add a source", tmp_path, processes)
    images = np.random.default_rng(1).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "digits.npy", images)
    assert "npy" in example.run("-m", "latentscale", "shards", "build", "--help").out
    example.run("-m", "latentscale", "shards", "build", "npy", "digits.npy", "--out", "data/digits")
    example.run("-m", "latentscale", "shards", "verify", "data/digits")
    settings = overrides(training__steps=2, data__name="shards", data__path="data/digits", run__dir="run")
    assert "trained pvdgan for 2 steps" in example.run("recipes/pvdgan.py", *settings).out
    example.check_tests(2)


def test_the_method_trains_and_passes_its_test(tmp_path: Path, processes: Processes) -> None:
    example = Example("Add a method", tmp_path, processes)
    settings = overrides(training__steps=2, snapshot__every_steps=2)
    done = example.run("recipes/feature_matching.py", "run.dir=run", "method.feature_weight=2", *settings)
    assert "trained feature_matching for 2 steps: run" in done.out
    reported = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("generator/features" in line for line in reported)
    # whoever has registered it finds it everywhere
    assert "feature_matching" in example.run("-m", "latentscale", "methods").out
    assert "step plan: " in example.run("-m", "latentscale", "train", "feature_matching", "--dry-run").out
    example.check_tests(2)


@pytest.fixture(scope="module")
def all_examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code with every example in it: a source, a method and a metric."""
    folder = tmp_path_factory.mktemp("examples")
    copy_code(folder)
    tests = [*apply_section("Add a source", folder), *apply_section("Add a method", folder), *apply_metric(folder)]
    assert len(tests) == 3
    # what mypy already knows of this code and its libraries saves most of its time
    if (ROOT / ".mypy_cache").is_dir():
        shutil.copytree(ROOT / ".mypy_cache", folder / ".mypy_cache")
    return folder


def check(folder: Path, processes: Processes) -> str:
    """What `make check` finds in a folder; empty if nothing."""
    recipe = re.search(r"^check: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    found = ""
    for line in recipe[1].splitlines():
        program, *arguments = line.strip().removeprefix("$(BIN)/").split()
        command = [sys.executable, "-m", program, *arguments]
        done = processes.run(command, folder, timeout_seconds=CHECK_SECONDS, PYTHONPATH="")
        found += (done.out + done.err) * (done.code != 0)
    return found


@pytest.mark.timeout(CHECK_SECONDS + 300)
def test_the_examples_pass_the_checks(all_examples: Path, processes: Processes) -> None:
    assert check(all_examples, processes) == ""


@pytest.mark.timeout(CHECK_SECONDS + 300)
@pytest.mark.parametrize(
    ("path", "line", "broken", "message"),
    [
        (
            "platform/latentscale/methods/feature_matching.py",
            "def mean_distance(x: Tensor, y: Tensor, streams: int) -> Tensor:",
            "def mean_distance(x: Tensor, y: Tensor, streams: str) -> Tensor:",
            "[arg-type]",
        ),
        (METRIC_TEST, "import pytest\n", "import os\n\nimport pytest\n", "F401"),
    ],
    ids=["a wrong type in the method", "an unused import in the metric's test"],
)
def test_a_broken_example_does_not(
    path: str, line: str, broken: str, message: str, all_examples: Path, processes: Processes
) -> None:
    text = (all_examples / path).read_text()
    assert text.count(line) == 1
    (all_examples / path).write_text(text.replace(line, broken))
    try:
        assert message in check(all_examples, processes)
    finally:
        (all_examples / path).write_text(text)
