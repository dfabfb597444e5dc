"""Outputs that cannot show a character, or whose reader has gone, end no command and no training."""

import json
import signal
import sys
from pathlib import Path

import pytest

from launching import ROOT, Processes, overrides

RECIPE = ROOT / "recipes" / "pvdgan.py"
# as an interpreter with PYTHONIOENCODING=ENCODING starts it
ENCODED = """
import runpy, sys
for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(encoding=sys.argv[1], errors="strict")
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
CONSOLE = "import sys; from latentscale.cli import main; sys.argv[0] = 'latentscale'; main()"


def training(folder: Path, steps: int = 4) -> list[str]:
    return [f"run.dir={folder}", *overrides(training__steps=steps)]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_characters_that_an_output_cannot_show_are_escaped(encoding: str, processes: Processes, tmp_path: Path) -> None:
    start = [sys.executable, "-c", ENCODED, encoding, str(RECIPE)]
    shown = processes.run([*start, "--help"])
    assert (shown.code, shown.err) == (0, "")
    assert "\\u2026" in shown.out or "\x85" in shown.out or "…" in shown.out or "\ufffd" in shown.out
    trained = processes.run([*start, *training(tmp_path / "run")])
    assert trained.code == 0, trained.err
    assert "trained pvdgan for 4 steps" in trained.out
    assert "Traceback" not in trained.err
    script = tmp_path / "console.py"
    script.write_text(CONSOLE)
    for command in (["methods"], ["metrics"], ["shards", "build", "--help"]):
        listed = processes.run([sys.executable, "-c", ENCODED, encoding, str(script), *command])
        assert (listed.code, listed.err) == (0, "")
        assert listed.out


@pytest.mark.parametrize("arguments", [["--help"], ["--dry-run"], []], ids=["help", "dry run", "training"])
def test_a_reader_that_goes_ends_nothing(arguments: list[str], processes: Processes, tmp_path: Path) -> None:
    """As ``| head -2``: the pipe is closed after two lines, or before the first."""
    rest = training(tmp_path / "run") if arguments != ["--help"] else []
    process = processes.start([sys.executable, str(RECIPE), *arguments, *rest])
    assert process.stdout is not None
    if arguments:
        process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    assert (process.wait(timeout=60), errors) == (0, "")
    if not arguments:
        assert (tmp_path / "run" / "checkpoints" / "step-000000004").is_dir()


@pytest.mark.parametrize("closed", ["1", "2", "12"])
def test_outputs_that_are_closed_from_the_start_end_nothing(closed: str, processes: Processes, tmp_path: Path) -> None:
    redirections = " ".join(f"{number}>&-" for number in closed)
    command = f"exec {sys.executable} {RECIPE} {' '.join(training(tmp_path / 'run'))} {redirections}"
    finished = processes.run(["bash", "-c", command])
    assert finished.code == 0, finished.out + finished.err
    assert (tmp_path / "run" / "checkpoints" / "step-000000004").is_dir()


def test_a_full_disk_under_the_output_is_an_error_of_a_command_and_none_of_a_training(
    processes: Processes, tmp_path: Path
) -> None:
    full = "import os, sys; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); "
    listed = processes.run([sys.executable, "-c", full + CONSOLE, "methods"])
    assert listed.code == 2
    assert listed.err.count("\n") == 1
    assert "No space left" in listed.err
    program = f"{full}import runpy; sys.argv[0] = {str(RECIPE)!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
    trained = processes.run([sys.executable, "-c", program, *training(tmp_path / "run")])
    assert (trained.code, trained.err) == (0, "")


def test_a_terminal_that_is_closed_stops_a_run_with_a_checkpoint(processes: Processes, tmp_path: Path) -> None:
    """By SIGHUP, unless that is ignored, as under nohup."""
    for ignored in (False, True):
        folder = tmp_path / f"run-{ignored}"
        code = (
            "import runpy, signal, sys\n"
            f"signal.signal(signal.SIGHUP, signal.{'SIG_IGN' if ignored else 'SIG_DFL'})\n"
            "from latentscale.telemetry import run_log\n"
            "report = run_log.ProgressLine.report\n"
            "def told(self, step, record):\n"
            "    report(self, step, record)\n"
            "    print('at', step, flush=True)\n"
            "run_log.ProgressLine.report = told\n"
            f"sys.argv[0] = {str(RECIPE)!r}\n"
            "runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        steps = 60 if ignored else 100_000
        settings = overrides(training__steps=steps, training__report_every_steps=1)
        process = processes.start([sys.executable, "-c", code, f"run.dir={folder}", *settings])
        assert process.stdout is not None
        assert process.stdout.readline().startswith("at")
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        kept = [path.name for path in (folder / "checkpoints").iterdir()]
        assert len(kept) == 1
        if ignored:
            assert "trained pvdgan for 60 steps" in out
        else:
            assert "with a checkpoint: run the same command to continue" in out


def test_a_pseudo_terminal_that_is_closed_stops_a_run_with_a_checkpoint(tmp_path: Path, processes: Processes) -> None:
    """The kernel sends SIGHUP, and every later write to the terminal fails."""
    folder = tmp_path / "run"
    code = f"""
import os, pty, signal, sys
pid, terminal = pty.fork()
if pid == 0:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
    os.execv(sys.executable, [sys.executable, {str(RECIPE)!r}, *sys.argv[1:]])
seen = b""
while b"images/s" not in seen:  # the first report: steps are being taken
    seen += os.read(terminal, 65536)
os.close(terminal)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    settings = {"training__steps": 100_000, "training__report_every_steps": 1, "telemetry__progress": "true"}
    finished = processes.run([sys.executable, "-c", code, f"run.dir={folder}", *overrides(**settings)])
    assert (finished.code, finished.out, finished.err) == (0, "0\n", "")
    assert [path.name for path in (folder / "checkpoints").iterdir()]


def test_the_line_of_progress_fits_its_terminal(tmp_path: Path, processes: Processes) -> None:
    """Step, speed and time left stay; the losses give way."""
    code = """
import fcntl, json, os, pty, re, struct, sys, termios
from latentscale.telemetry.run_log import ProgressLine
seen = {}
for columns in (40, 60, 80, 120, 200):
    terminal, ours = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    os.dup2(ours, 2)
    sys.stderr = os.fdopen(ours, "w")
    for number in (0, 1):  # rich asks any standard stream that is a terminal
        assert not os.isatty(number)
    os.environ.pop("COLUMNS", None)
    os.environ["TERM"] = "xterm"
    shown = ["discriminator/adversarial", "generator/adversarial", "generator/encoder"]
    line = ProgressLine(20_000, 0, True, shown)
    line.start()
    line.report(100, {"images_per_second": 1234.0, **dict.fromkeys(shown, 1.011)})
    line.advance(200)
    task = line._progress.tasks[0]
    task._progress.clear()
    from rich.progress import ProgressSample
    task._progress.extend(ProgressSample(float(n), 10.0) for n in range(5))
    line._progress.refresh()
    line.stop()
    sys.stderr.flush()
    sys.stderr.close()
    os.dup2(1, 2)  # nobody has the terminal open: it ends
    data = b""
    try:
        while part := os.read(terminal, 65536):
            data += part
    except OSError:
        pass
    text = data.decode()
    seen[columns] = [part for part in re.split(r"[\\r\\n]|\\x1b\\[[0-9;?]*[A-Za-z]", text) if part.startswith("step")]
print(json.dumps(seen))
"""
    finished = processes.run([sys.executable, "-c", code], cwd=tmp_path)
    assert finished.code == 0, finished.err
    last = {int(columns): lines[-1] for columns, lines in json.loads(finished.out).items()}
    for columns, line in last.items():
        assert len(line) <= columns
        if columns >= 60:
            assert line.startswith("step 200/20,000")
            assert "1,234 images/s" in line
            assert "left" in line
    assert "D adversarial" not in last[60]
    assert "D adversarial 1.011" in last[80]
    assert "G adversarial" not in last[80]
    assert "G encoder 1.011" in last[200]


def test_no_home_folder_is_needed_for_shards_on_a_local_disk(
    numbered: object, processes: Processes, tmp_path: Path
) -> None:
    from latentscale.shards.sharded_dataset import ShardedDataset

    dataset = numbered(64, 16)  # type: ignore[operator]
    assert isinstance(dataset, ShardedDataset)
    code = (
        "import os, pwd, runpy, sys\n"
        "def unknown(*arguments): raise KeyError('no such user')\n"
        "pwd.getpwuid = unknown\n"
        "for name in ('HOME', 'XDG_CACHE_HOME', 'LATENTSCALE_CACHE'): os.environ.pop(name, None)\n"
        f"sys.argv[0] = {str(RECIPE)!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    local = ["data.name=shards", f"data.path={dataset.path}", "data.shape=[]", "network.family=mlp"]
    trained = processes.run([sys.executable, "-c", code, *training(tmp_path / "run", 1), *local])
    assert trained.code == 0, trained.err
    refused = processes.run([sys.executable, "-c", code, *training(tmp_path / "other", 1)])
    assert refused.code == 2
    assert refused.err == (
        "error: there is no home folder for cached data: set the environment variable LATENTSCALE_CACHE to a folder\n"
    )


def test_a_tilde_is_the_home_folder(processes: Processes, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    work = tmp_path / "work"
    work.mkdir()
    trained = processes.run([sys.executable, str(RECIPE), *training(Path("~/runs/a"), 1)], work, HOME=str(home))
    assert trained.code == 0, trained.err
    assert (home / "runs" / "a" / "checkpoints").is_dir()
    assert str(home / "runs" / "a") in trained.out
    assert not any(work.iterdir())
    for key in ("run.dir", "data.path", "data.cache_folder", "preset"):
        refused = processes.run(
            [sys.executable, str(RECIPE), f"{key}=~nobody-of-this-name/x", "data.name=shards"], work, HOME=str(home)
        )
        assert refused.code == 2
        assert refused.err.startswith(f"error: {key}=~nobody-of-this-name/x: the home folder of ~nobody-of-this-name")
    built = processes.run(
        [sys.executable, "-m", "latentscale", "shards", "build", "digits", "--out=~/digits", "--workers", "0"], work,
        HOME=str(home),
    )  # fmt: skip
    assert built.code == 0, built.err
    assert (home / "digits" / "train" / "dataset.json").is_file()
    assert not any(work.iterdir())
