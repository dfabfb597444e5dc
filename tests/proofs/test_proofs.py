"""The proofs that CI does not run: how their output is kept, and that their lists are up to date."""

import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import prove
import psutil
import pytest
from broken_code import apply, run_tests
from busy_machine import TIMED, busy, busy_machine
from faults_in_code import FAULTS, Fault

from launching import ROOT


@pytest.mark.parametrize("holds", [True, False])
def test_the_output_is_kept_with_date_machine_and_versions(
    holds: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def proof(arguments: list[str]) -> bool:
        print("given", *arguments)
        return holds

    monkeypatch.setitem(prove.PROOFS, "busy-machine", proof)
    assert prove.prove("busy-machine", ["--minutes", "1"], tmp_path) is holds
    kept = (tmp_path / "busy-machine.txt").read_text()
    assert capsys.readouterr().out == kept
    lines = kept.splitlines()
    assert lines[0] == "proof     busy-machine --minutes 1"
    assert re.fullmatch(r"date      20\d\d-\d\d-\d\d \d\d:\d\d UTC", lines[1])
    assert re.fullmatch(r"commit    ([0-9a-f]{12}|unknown)( with changes)?", lines[2])
    assert re.fullmatch(r"machine   .+, \d+ CPUs, \d+ GiB, Linux .+", lines[3])
    assert re.fullmatch(r"versions  Python 3\.\d+\.\d+, torch 2\..+, accelerate 1\..+", lines[4])
    assert lines[6] == "given --minutes 1"
    assert lines[-1].startswith("held after" if holds else "DID NOT HOLD after")


def test_an_interrupted_proof_leaves_the_last_ones_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def proof(arguments: list[str]) -> bool:
        raise KeyboardInterrupt

    (tmp_path / "broken-code.txt").write_text("before")
    monkeypatch.setitem(prove.PROOFS, "broken-code", proof)
    with pytest.raises(KeyboardInterrupt):
        prove.prove("broken-code", [], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["broken-code.txt"]
    assert (tmp_path / "broken-code.txt").read_text() == "before"


@pytest.mark.slow
def test_the_fuzz_is_a_proof_that_keeps_its_table(tmp_path: Path) -> None:
    assert prove.prove("fuzz", ["--cases", "2", "--kinds", "environments", "--jobs", "1"], tmp_path)
    kept = (tmp_path / "fuzz.txt").read_text()
    assert "kind          cases  ok  refused in one line" in kept
    assert "\nenvironments      2" in kept
    assert "\nheld after " in kept


def test_make_help_lists_every_proof() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {f"prove-{name}" for name in prove.PROOFS} == set(re.findall(r"^prove-[a-z-]+", listed, re.MULTILINE))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_fits_the_code_and_its_tests_exist(fault: Fault, tmp_path: Path) -> None:
    (tmp_path / fault.file).parent.mkdir(parents=True)
    whole = (ROOT / fault.file).read_text()
    (tmp_path / fault.file).write_text(whole)
    apply(fault, tmp_path)
    broken = (tmp_path / fault.file).read_text()
    assert broken == whole.replace(fault.right, fault.wrong) != whole
    compile(broken, fault.file, "exec")
    for test in fault.tests:
        file, *names = test.split("::")
        assert (ROOT / file).is_file()
        assert all(f"def {name}(" in (ROOT / file).read_text() for name in names)


def test_a_fault_that_no_longer_fits_is_named(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("a = 1\na = 1\n")
    with pytest.raises(ValueError, match=r"file.py has 'a = 1' 2 times, not once: bring old fault up to date"):
        apply(Fault("old fault", "file.py", "a = 1", "a = 2", ()), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "passed", "failure"),
    [
        ("def test_it(): pass", True, ""),
        ("def test_it(): assert 1 == 2", False, "test_it.py::test_it - assert 1 == 2"),
        (
            "import pytest\n@pytest.fixture\ndef broken(): raise ValueError('here')\ndef test_it(broken): pass",
            False, "",
        ),
        ("import not_there\ndef test_it(): pass", False, ""),
        ("import time\ndef test_it(): time.sleep(60)", False, ""),
        ("import pytest, time\n@pytest.mark.timeout(0.2)\ndef test_it(): time.sleep(60)", False, ""),
        ("import subprocess\ndef test_it(): subprocess.run(['sleep', '9'], timeout=0.1)", False, ""),
    ],
    ids=[
        "passes", "fails", "a fixture fails", "is not collected", "takes too long", "is timed out",
        "what it waits for takes too long",
    ],
)  # fmt: skip
def test_only_a_test_that_fails_finds_a_fault(content: str, passed: bool, failure: str, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(content)
    outcome = run_tests(tmp_path, ("test_it.py",), 5 if content.startswith("import time") else 60)
    assert (outcome.passed, outcome.failure) == (passed, failure), outcome.output


def test_names_of_faults_differ() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.slow
def test_a_busy_machine_is_busy_only_while_it_is_needed() -> None:
    before = set(psutil.Process().children())
    with busy(2):
        started = set(psutil.Process().children()) - before
        assert len(started) == 2
        # past their imports they compute
        deadline = time.monotonic() + 60
        while min(sum(process.cpu_times()[:2]) for process in started) < 1.0:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert psutil.wait_procs(started, timeout=60)[1] == []


def test_processes_that_end_early_spoil_the_proof() -> None:
    before = set(psutil.Process().children())
    stack = ExitStack()
    stack.enter_context(busy(1))
    (started,) = set(psutil.Process().children()) - before
    started.kill()
    while started.is_running() and started.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    with pytest.raises(RuntimeError, match="the proof shows nothing"):
        stack.close()


@pytest.mark.slow
def test_busy_processes_end_with_a_proof_that_is_killed(tmp_path: Path) -> None:
    program = f"""
import sys, time
sys.path[:0] = [{str(ROOT / "tests" / "proofs")!r}]
from busy_machine import busy
with busy(2):
    print("busy", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as proof:
        assert proof.stdout is not None
        assert proof.stdout.readline() == "busy\n"
        started = psutil.Process(proof.pid).children()
        proof.kill()
    assert len(started) == 2
    assert psutil.wait_procs(started, timeout=60)[1] == []


@pytest.mark.slow
@pytest.mark.parametrize(("body", "held"), [("pass", True), ("raise ValueError", False)])
def test_rounds_beside_busy_processes_count_failures(
    body: str, held: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = tmp_path / "test_it.py"
    test.write_text(f"def test_it(): {body}\n")
    assert busy_machine(["--minutes", "0.001", "--busy", "1", str(test)]) is held
    out = capsys.readouterr().out
    assert f"1 round beside 1 busy process, {'0 failures' if held else '1 failure'}" in out
    assert ("1 of 1: " in out) is not held


def test_the_timed_tests_exist() -> None:
    assert all((ROOT / name).exists() for name in TIMED)
