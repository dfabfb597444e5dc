"""In CI nothing is skipped in silence, and nothing for want of a tool."""

import sys
from pathlib import Path

import pytest

from launching import ROOT, Finished, Processes

CONFTEST = "from skipping import pytest_make_collect_report, pytest_runtest_makereport\n"
SKIPS = {
    "a mark": "@pytest.mark.skipif(True, reason={reason!r})\ndef test_it(): pass",
    "a call": "def test_it(): pytest.skip({reason!r})",
    "a fixture": "@pytest.fixture\ndef tool(): pytest.skip({reason!r})\ndef test_it(tool): pass",
    "a file": "pytest.skip({reason!r}, allow_module_level=True)",
    "a library": "pytest.importorskip('no_such_library', reason={reason!r})",
}


def run(processes: Processes, folder: Path, body: str, ci: str, platform: str = "linux") -> Finished:
    (folder / "conftest.py").write_text(f"import sys\nsys.platform = {platform!r}\n{CONFTEST}")
    (folder / "test_skips.py").write_text(f"import pytest\n{body}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--rootdir", str(folder), "."]
    return processes.run(command, folder, PYTHONPATH=str(ROOT / "tests"), CI=ci)


@pytest.mark.parametrize("how", SKIPS)
def test_a_skip_for_want_of_a_tool_fails_in_ci_alone(how: str, processes: Processes, tmp_path: Path) -> None:
    body = SKIPS[how].format(reason="there is no scontrol")
    in_ci = run(processes, tmp_path, body, "true")
    assert in_ci.code != 0
    assert "skipped in CI: there is no scontrol" in in_ci.out
    elsewhere = run(processes, tmp_path, body, "")
    assert elsewhere.code in (0, 5), elsewhere.out  # 5: no test is left
    assert "there is no scontrol" in elsewhere.out  # and is printed at the end


@pytest.mark.parametrize("reason", ["needs a GPU", "has a GPU", "needs real data: afhq is absent"])
def test_a_gpu_and_real_data_may_be_absent(reason: str, processes: Processes, tmp_path: Path) -> None:
    finished = run(processes, tmp_path, SKIPS["a call"].format(reason=reason), "true")
    assert finished.code == 0, finished.out
    assert reason in finished.out


def test_an_expected_failure_is_no_skip(processes: Processes, tmp_path: Path) -> None:
    finished = run(processes, tmp_path, "@pytest.mark.xfail\ndef test_it(): raise ValueError", "true")
    assert finished.code == 0, finished.out


def test_a_test_of_processes_needs_linux_and_fails_elsewhere_in_ci(processes: Processes, tmp_path: Path) -> None:
    body = "from skipping import needs_linux\n@needs_linux\ndef test_it(): raise ValueError"
    for ci, code in (("true", 1), ("", 0)):
        finished = run(processes, tmp_path, body, ci, "darwin")
        assert finished.code == code, finished.out
        assert "the processes of tests need Linux" in finished.out
        assert ("docker run --privileged" in finished.out) is bool(ci)
