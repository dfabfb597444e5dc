"""The worked examples of the documents, put into a copy of the code as their reader would."""

import re
import shutil
from pathlib import Path

from documents import blocks
from launching import ROOT

CONTRIBUTING = ROOT / "CONTRIBUTING.md"
METRIC_PAGE = ROOT / "docs" / "adding-a-metric.md"
METRIC_TEST = "tests/evaluation/test_largest_pixel_error.py"


def copy_code(folder: Path) -> None:
    """Copy the package, the recipes, the tests' helpers and the tools' configuration."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "reproductions")
    for name in ("platform", "recipes"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    (folder / "tests").mkdir()
    for path in (ROOT / "tests").glob("*.py"):
        if path.name != "conftest.py" and not path.name.startswith("test_"):
            shutil.copy(path, folder / "tests")
    shutil.copy(ROOT / "pyproject.toml", folder)


def apply_section(section: str, folder: Path) -> list[str]:
    """Add a section's files and edits to a copy of the code.

    Args:
        section: the heading in CONTRIBUTING.md.

    Returns:
        The section's tests.
    """
    text = CONTRIBUTING.read_text(encoding="utf-8")
    first = text[: text.index(f"\n## {section}\n")].count("\n") + 1
    rest = text.splitlines()[first + 1 :]
    length = next((number for number, line in enumerate(rest) if line.startswith("## ")), len(rest))
    lines = text.splitlines()
    tests = []
    for block in blocks(CONTRIBUTING):
        if not first < block.line <= first + length + 1:
            continue
        before = " ".join(lines[first : block.line - 1])
        path = re.findall(r"`([\w./]+\.py)`", before)[-1]
        if block.language == "python":
            add_file(folder / path, block.text)
            tests += [path] if path.startswith("tests/") else []
        elif block.language == "diff":
            (folder / path).write_text(patched((folder / path).read_text(), block.text))
    return tests


def apply_metric(folder: Path) -> list[str]:
    """Add the metric of docs/adding-a-metric.md to a copy of the code; returns its test."""
    text = METRIC_PAGE.read_text(encoding="utf-8")
    for path in ("platform/latentscale/evaluation/metrics/largest_pixel_error.py", METRIC_TEST):
        found = re.search(rf"`{re.escape(path)}`:\n\n```python\n(.*?)```", text, re.DOTALL)
        assert found, path
        add_file(folder / path, found[1])
    lines = re.search(r"registry\.py`;.*?```python\n(.*?)\.\.\.\n(.*?)```", text, re.DOTALL)
    assert lines
    added_import, rows = lines.groups()
    registry = folder / "platform" / "latentscale" / "evaluation" / "registry.py"
    before, old_row = registry.read_text(), rows.splitlines(keepends=True)[0]
    assert before.count(old_row) == 1
    # imports are in alphabetical order
    imports = re.findall(r"^from latentscale\.evaluation\.metrics\..*\n", before, re.MULTILINE)
    after = max(line for line in imports if line < added_import)
    registry.write_text(before.replace(after, after + added_import).replace(old_row, rows))
    return [METRIC_TEST]


def add_file(path: Path, text: str) -> None:
    """Write a new file."""
    assert not path.exists(), path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


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
