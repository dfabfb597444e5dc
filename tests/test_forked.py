"""Processes that are forked from a warm server are like those that an interpreter starts, and leave nothing behind."""

import contextlib
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

import fork_server
from forked import SERVER, ForkedProcess, server_environment
from launching import RANKS, Processes, environment, free_port, python_arguments
from skipping import needs_linux

pytestmark = needs_linux

# what a process can see of how it was started
SHOWN = """
import atexit, json, os, signal, sys
import helper
def at_exit():
    print("at exit of", __name__)
atexit.register(at_exit)
print(json.dumps({
    "argv": sys.argv, "name": __name__, "file": globals().get("__file__"), "cwd": os.getcwd(),
    "path": sys.path[:2], "main": sys.modules["__main__"].__dict__ is globals(), "helper": helper.VALUE,
    "environment": {key: value for key, value in os.environ.items() if key != "LC_CTYPE"},
    "leads": [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()],
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],
    "input": sys.stdin.read(),
    "handlers": {name: str(signal.getsignal(getattr(signal, name)))
                 for name in ("SIGINT", "SIGTERM", "SIGCHLD", "SIGPIPE")},
    "ignored": [line for line in open("/proc/self/status") if line.startswith(("SigBlk", "SigIgn"))],
}))
sys.stderr.write("without a newline")
sys.exit(5)
"""
FAILS = """
import sys
def inner():
    raise KeyError(sys.argv[1:])
inner()
"""


@pytest.fixture
def server() -> Iterator[tuple[socket.socket, psutil.Process]]:
    """A server of its own that has imported nothing, and so starts at once: the connection, and the server."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, str(SERVER), str(its.fileno()), "cold"]
    started = subprocess.Popen(
        command, pass_fds=[its.fileno()], env=server_environment(), stdin=subprocess.DEVNULL, start_new_session=True
    )
    its.close()
    yield ours, psutil.Process(started.pid)
    ours.close()
    started.wait(timeout=30)


def both(argv: Sequence[str], cwd: Path, connection: socket.socket, **extra: str) -> list[tuple[int, str, str]]:
    """How a forked process, and one of an interpreter, end: status, output and errors."""
    surroundings = environment(**extra)
    forked = ForkedProcess(argv, cwd, surroundings, connection)
    out, err = forked.communicate(timeout=60)
    finished = subprocess.run(
        [sys.executable, *argv], cwd=cwd, env=surroundings, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert forked.returncode is not None
    return [(forked.returncode, out, err), (finished.returncode, finished.stdout, finished.stderr)]


def until(condition: Callable[[], bool]) -> bool:
    """Whether it becomes true within a minute."""
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def gone(pid: int) -> bool:
    """Whether a process has ended; nobody may have waited for it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


@pytest.mark.parametrize("content", [SHOWN, FAILS], ids=["shows all", "fails"])
def test_a_forked_process_is_what_an_interpreter_starts(
    content: str, server: tuple[socket.socket, psutil.Process], tmp_path: Path
) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "helpers").mkdir()
    script = tmp_path / "scripts" / "script.py"
    script.write_text(content)
    (tmp_path / "helpers" / "helper.py").write_text("VALUE = 7")
    (tmp_path / "module.py").write_text(content)
    for argv in ([str(script), "a b", "--c=d"], ["-m", "module", "x"], ["-c", content, "y", "z"]):
        forked, started = both(argv, tmp_path, server[0], PYTHONPATH=str(tmp_path / "helpers"), ANYTHING="ä=1")
        assert forked[0] == started[0] == (5 if content == SHOWN else 1)
        if content == FAILS:
            runpys_own = re.compile(r'  File "<frozen runpy>".*\n')
            assert forked[1:] == ("", runpys_own.sub("", started[2]))
            continue
        shown, *after = forked[1].splitlines()
        assert after == ["at exit of __main__"]
        assert json.loads(shown) == json.loads(started[1].splitlines()[0])
        assert json.loads(shown)["environment"]["ANYTHING"] == "ä=1"
        assert forked[2] == started[2] == "without a newline"


def test_a_process_that_has_ended_before_its_pid_is_read_is_reported_too() -> None:
    """On a busy machine the reader finds both lines at once."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def serve_at_once() -> None:
        _, descriptors, _, _ = socket.recv_fds(its, 2**20, 3)
        os.write(descriptors[2], b"123456789\n9 0.250\n")
        for descriptor in descriptors:
            os.close(descriptor)

    with ours, its:
        serving = threading.Thread(target=serve_at_once)
        serving.start()
        process = ForkedProcess(["-c", "pass"], Path("/"), {}, ours)
        serving.join()
        assert process.pid == 123456789
        assert process.communicate(timeout=60) == ("", "")
        assert (process.returncode, process.processor_seconds) == (-9, 0.25)


def open_pipes() -> set[str]:
    """The pipes that this process holds open, by names that are given once; other kinds may be other tests'."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        # the descriptor of this very listing has gone
        with contextlib.suppress(FileNotFoundError):
            found.add(str(descriptor.readlink()))
    return {name for name in found if name.startswith("pipe:")}


@pytest.mark.slow
def test_signals_timeouts_and_much_output(server: tuple[socket.socket, psutil.Process]) -> None:
    content = """
import signal, sys
for stream in (sys.stderr, sys.stdout):
    stream.write("0123456789" * 30_000 + "\\n")
    stream.flush()
signal.pause()
"""
    before = open_pipes()
    process = ForkedProcess(["-c", content], Path("/"), environment(), server[0])
    assert process.poll() is None
    for timeout in (0.1, 0.5):
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=timeout)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == process.poll() == process.wait() == -signal.SIGTERM
    assert len(out) == len(err) == 300_001
    process.kill()  # does nothing to one that has ended
    # KeyboardInterrupt, and its status
    process = ForkedProcess(["-c", "import signal; signal.pause()"], Path("/"), environment(), server[0])
    assert until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1].endswith("KeyboardInterrupt\n")
    assert open_pipes() <= before


def test_a_server_and_its_processes_end_with_the_owner(server: tuple[socket.socket, psutil.Process]) -> None:
    connection, itself = server
    sleeps = [ForkedProcess(["-c", "import time; time.sleep(600)"], Path("/"), environment(), connection) for _ in "ab"]
    assert len(itself.children()) == 2
    connection.close()
    assert until(lambda: gone(itself.pid))
    assert until(lambda: all(gone(process.pid) for process in sleeps))


def test_one_that_is_killed_and_all_it_started_are_gone_and_the_server_goes_on(
    server: tuple[socket.socket, psutil.Process],
) -> None:
    connection, itself = server
    content = "import subprocess, time; subprocess.Popen(['sleep', '600']); print('on', flush=True); time.sleep(600)"
    process = ForkedProcess(["-c", content], Path("/"), environment(), connection)
    assert process.stdout.readline() == "on\n"
    (child,) = psutil.Process(process.pid).children()
    processes = Processes()
    processes.end(process)
    assert process.returncode == -signal.SIGKILL
    assert until(lambda: gone(child.pid))
    again = ForkedProcess(["-c", "print('again')"], Path("/"), environment(), connection)
    assert again.communicate(timeout=60) == ("again\n", "")
    assert itself.children() == []


RANK = """
import os, sys, time
from pathlib import Path
number, folder = int(os.environ["RANK"]), Path(sys.argv[0]).parent
line = f"{number} {os.getpid()} {sys.argv[1:]} {os.environ['WORLD_SIZE']} {os.environ['LOCAL_RANK']}\\n"
os.write(1, line.encode())  # at once: nothing of another comes between
(folder / f"{number}.there").touch()
if sys.argv[1] == "fails" and number == 1:
    while len(list(folder.glob("*.there"))) < 3:  # its failure ends those that have said nothing yet
        time.sleep(0.01)
    sys.exit(3)
if sys.argv[1] != "ends":
    time.sleep(600)
"""


@pytest.mark.parametrize("how", ["ends", "fails", "is killed", "is terminated"])
def test_ranks_end_with_the_first_that_fails_and_with_what_started_them(
    how: str, server: tuple[socket.socket, psutil.Process], tmp_path: Path
) -> None:
    (tmp_path / "rank.py").write_text(RANK)
    argv = [str(RANKS), "3", str(free_port()), str(tmp_path / "rank.py"), how]
    process = ForkedProcess(argv, tmp_path, environment(), server[0])
    lines = sorted(process.stdout.readline() for _ in range(3))
    pids = [int(line.split()[1]) for line in lines]
    assert lines == [f"{rank} {pid} [{how!r}] 3 {rank}\n" for rank, pid in enumerate(pids)]
    if how == "is killed":
        process.kill()
    elif how == "is terminated":
        process.terminate()
    assert process.wait(timeout=60) == {"ends": 0, "is killed": -signal.SIGKILL}.get(how, 1)
    assert until(lambda: all(gone(pid) for pid in pids))


def test_only_python_without_options_is_forked() -> None:
    for command, argv in (
        ([sys.executable, "-c", "pass"], ["-c", "pass"]),
        ([sys.executable, "-m", "latentscale", "x"], ["-m", "latentscale", "x"]),
        ([sys.executable, "script.py", "-x"], ["script.py", "-x"]),
        ([sys.executable, "-X", "dev", "script.py"], []),
        ([sys.executable], []),
        (["accelerate", "launch"], []),
    ):
        assert python_arguments(command) == argv


def test_no_two_test_processes_use_the_same_ports() -> None:
    content = "from launching import free_port; print([free_port() for _ in range(150)])"
    finished = Processes().run([sys.executable, "-c", content], interpreter=True, PYTHONPATH=str(RANKS.parent))
    assert finished.code == 0, finished.err
    theirs = set(json.loads(finished.out))
    assert 1 < len(theirs) <= 100
    assert theirs.isdisjoint(free_port() for _ in range(150))


# how a program may end
PROGRAMS = {
    "nothing": "pass",
    "a status": "import sys; sys.exit(3)",
    "a negative status": "import sys; print('unfinished line', end=''); sys.exit(-1)",
    "a message": "import sys; sys.exit('text')",
    "an error": "import atexit; atexit.register(print, 'at exit'); 1 / 0",
    "Ctrl-C": "raise KeyboardInterrupt",
    "a signal": "import os; os.kill(os.getpid(), 15)",
    "a closed output": "import sys; sys.stdout.close()",
    "a thread that still runs": (
        "import threading, time\ndef later():\n    time.sleep(0.2)\n    print('later')\n"
        "threading.Thread(target=later).start()\nprint('first', flush=True)"
    ),
    "an output that nobody can take": "import os; print('text'); os.dup2(os.open('/dev/full', os.O_WRONLY), 1)",
    "daemon threads": "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_the_end_is_that_of_a_process_of_its_own(program: str, processes: Processes) -> None:
    forked, own = (processes.run([sys.executable, "-c", program], interpreter=each) for each in (False, True))
    assert (forked.code, forked.out) == (own.code, own.out)
    # the interpreter says more of an output that failed
    assert forked.err == own.err or own.code == 120


def test_ports_that_are_all_in_use_are_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_port()
    monkeypatch.setattr("launching._is_free", lambda port: False)
    with pytest.raises(AssertionError, match="all 100 ports of this process's tests are in use"):
        free_port()
    monkeypatch.setattr("launching._is_free", lambda port: port == first)
    assert [free_port(), free_port()] == [first, first]


# starts SHOWN, having much that a child of its own is not to have
LAUNCHER = """
import asyncio, atexit, os, signal, subprocess, sys, tempfile, threading, weakref
import concurrent.futures
worker = concurrent.futures.ThreadPoolExecutor(1)
worker.submit(int).result()
folder = tempfile.TemporaryDirectory()
class Kept: ...
kept = Kept()
weakref.finalize(kept, os.write, 1, b"a finalizer of the launcher\\n")
atexit.register(os.write, 1, b"at exit of the launcher\\n")
signal.signal(signal.SIGTERM, lambda number, frame: None)
signal.signal(signal.SIGINT, lambda number, frame: None)
async def launch():
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, print)
    surroundings = {**os.environ, "TMPDIR": sys.argv[2], "ANYTHING": "of a child"}
    child = subprocess.Popen(
        [sys.executable, *sys.argv[3:]], env=surroundings, cwd=sys.argv[1], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN))
    out, err = child.communicate()
    sys.stdout.write(f"{out}{err}{child.returncode} {os.path.isdir(folder.name)}\\n")
asyncio.run(launch())
"""
CHILD = """
import asyncio, json, os, sys, tempfile
assert "forking_popen" in sys.modules or not int(os.environ["FORKED"])
shown = [tempfile.gettempdir(), sys.stdout.write_through, sys.stdout.line_buffering, sys.stderr.line_buffering]
folder = sys.kept_to_the_end = tempfile.TemporaryDirectory()
print(json.dumps([*shown, os.listdir(tempfile.gettempdir()) == [os.path.basename(folder.name)]]))
try:
    print(asyncio.get_event_loop().is_running())
except RuntimeError as error:
    print(error)
print(asyncio.run(asyncio.sleep(0, "a loop of its own")))
print(open("/proc/self/environ").read().split("ANYTHING=")[1].split("\\0")[0])
"""


@pytest.mark.parametrize("options", [[], ["-u"]], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("content", [SHOWN, CHILD, "1 / 0"], ids=["shows all", "has nothing of its parent", "fails"])
def test_the_child_of_a_forked_launcher_is_what_an_interpreter_starts(
    content: str, options: list[str], server: tuple[socket.socket, psutil.Process], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    (tmp_path / "child.py").write_text(content)
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "helper.py").write_text("VALUE = 7")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    argv = [str(tmp_path / "launcher.py"), str(tmp_path), str(temporary), *options, str(tmp_path / "child.py"), "a b"]
    said = {"PYTHONPATH": str(tmp_path / "helpers"), "FORKED": "1"}
    surroundings = environment(ACCELERATE_USE_CPU="true", **said)
    process = ForkedProcess(argv, tmp_path, surroundings, server[0], forks_children=True)
    out, err = process.communicate(timeout=60)
    own = Processes().run([sys.executable, *argv], cwd=tmp_path, interpreter=True, **{**said, "FORKED": "0"})
    runpys_own = re.compile(r'  File "<frozen runpy>".*\n')
    shown = out.replace('"FORKED": "1"', '"FORKED": "0"')
    assert (process.returncode, shown, err) == (own.code, runpys_own.sub("", own.out), own.err)
    # the launcher's own end is only the launcher's, and the child's folder is removed by the child
    assert out.count("a finalizer of the launcher") == out.count("at exit of the launcher") == 1
    assert list(temporary.iterdir()) == []
    assert f"{ {SHOWN: 5, CHILD: 0}.get(content, 1) } True\n" in out


# prints whether its children are forked: first alone, then in a thread, then beside one
THREADS = """
import os, subprocess, sys, threading, time
def start(**options):
    child = [sys.executable, "-c", "import sys; print('forking_popen' in sys.modules)"]
    print(subprocess.run(child, capture_output=True, text=True, **options).stdout, end="", flush=True)
start()
start(umask=0o077)
thread = threading.Thread(target=start)
thread.start()
thread.join()
while len(os.listdir("/proc/self/task")) > 1:  # the kernel ends it a moment later
    time.sleep(0.01)
start()
held = threading.Event()
threading.Thread(target=held.wait, daemon=True).start()
start()
held.set()
"""


def test_a_launcher_forks_only_where_no_thread_may_hold_a_lock(server: tuple[socket.socket, psutil.Process]) -> None:
    process = ForkedProcess(["-c", THREADS], Path("/"), environment(), server[0], forks_children=True)
    assert process.communicate(timeout=60) == ("True\nFalse\nFalse\nTrue\nFalse\n", "")


def test_children_of_a_forked_launcher_have_randomness_of_their_own(processes: Processes) -> None:
    content = """
import subprocess, sys
import numpy
child = "import numpy, random; print(random.random(), *numpy.random.rand(1))"
for _ in range(3):
    print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout, end="")
print(numpy.random.rand())
"""
    finished = processes.run([sys.executable, "-c", content], forks_children=True)
    assert finished.code == 0, finished.err
    assert len(set(finished.out.split())) == 7, finished.out


def test_children_of_a_forked_launcher_end_with_the_owner_too(server: tuple[socket.socket, psutil.Process]) -> None:
    connection, _ = server
    content = """
import subprocess, sys
child = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True).wait()
"""
    process = ForkedProcess(["-c", content], Path("/"), environment(), connection, forks_children=True)
    child = int(process.stdout.readline())
    connection.close()
    assert until(lambda: gone(process.pid))
    assert until(lambda: gone(child))


def test_a_namespace_that_has_ended_leaves_the_server_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first process may end after the server has entered it, and no process can then be started there."""
    entered: list[tuple[int, ...]] = []

    def fails() -> int:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(fork_server, "enter_namespaces", lambda model, *kinds: entered.append((model, *kinds)))
    monkeypatch.setattr(fork_server.os, "fork", fails)
    assert fork_server.fork({"namespaces_of": 7}) is None
    assert entered == [(7, "pid"), (os.getpid(), "pid")]
