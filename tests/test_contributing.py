"""CONTRIBUTING's examples: a copy of the package gets their files and edits, and uses them for real."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from documents import blocks
from launching import ROOT, Finished, Processes, overrides

DOCUMENT = ROOT / "CONTRIBUTING.md"


class Example:
    """A copy of the code with a section's files and edits in it.

    Args:
        section: the heading.
        folder: of the copy.
    """

    def __init__(self, section: str, folder: Path, processes: Processes) -> None:
        self.folder, self.processes, self.tests = folder, processes, list[str]()
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "reproductions")
        for name in ("platform", "recipes"):
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        text = DOCUMENT.read_text()
        first = text[: text.index(f"\n## {section}\n")].count("\n") + 1
        rest = text.splitlines()[first + 1 :]
        length = next((number for number, line in enumerate(rest) if line.startswith("## ")), len(rest))
        lines = text.splitlines()
        for block in blocks(DOCUMENT):
            if not first < block.line <= first + length + 1:
                continue
            before = " ".join(lines[first : block.line - 1])
            path = re.findall(r"`([\w./]+\.py)`", before)[-1]
            if block.language == "python":
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                assert not (folder / path).exists(), path
                (folder / path).write_text(block.text)
                self.tests += [path] if path.startswith("tests/") else []
            elif block.language == "diff":
                (folder / path).write_text(patched((folder / path).read_text(), block.text))

    def run(self, *argv: str) -> Finished:
        """Run Python in the copy; it must end well."""
        helpers = [ROOT / "tests", ROOT / "tests" / "sources", ROOT / "tests" / "methods"]
        paths = ":".join(map(str, [self.folder / "platform", *helpers]))
        done = self.processes.run([sys.executable, *argv], self.folder, PYTHONPATH=paths)
        assert done.code == 0, done.out + done.err
        return done

    def check_tests(self, count: int) -> None:
        """The section's own tests pass, and what is written keeps the house's style."""
        found = self.run("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *self.tests)
        assert f"{count} passed" in found.out, found.out
        shutil.copy(ROOT / "pyproject.toml", self.folder)
        self.run("-m", "ruff", "check", "--no-cache", ".")
        self.run("-m", "ruff", "format", "--no-cache", "--check", ".")


def patched(text: str, difference: str) -> str:
    """Text with the lines of a diff added, each after the line that stands before it there."""
    lines, place = text.splitlines(), -1
    for line in difference.splitlines():
        if line.startswith("@@"):
            continue
        if line.startswith("+"):
            place += 1
            lines.insert(place, line[1:])
        else:
            assert line.startswith(" "), line
            assert lines.count(line[1:]) == 1, line
            place = lines.index(line[1:])
    return "\n".join(lines) + "\n"


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
