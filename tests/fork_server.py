"""A process that has imported what a training run imports, and forks once per request: a start without the imports.

``python fork_server.py DESCRIPTOR MODULE…`` serves the socket DESCRIPTOR, having imported the modules too; ``cold`` in
their place leaves all imports out. A request is JSON: ``argv`` (a script, or ``-m`` or ``-c`` and what follows it, then
the arguments), ``cwd``, ``environment``, ``forks_children``, whether the interpreters that it starts are forked too
(see forking_popen.py), and, where it is to run in the namespaces of another process, ``namespaces_of``, the id of that.
With it come three descriptors: standard output, standard error, and a pipe on which the child first writes its pid (in
its own namespace), and the server, when the child has ended, its wait status and its processor seconds. The server ends
when the socket does, and its children end with it.

A child differs from a process of its own in what it has imported, and in nothing that a test looks at: it leads its own
session, has the default signal handlers, its own environment, working folder, ``sys.argv`` and ``__main__``, and ends
as the interpreter ends, but for what that does last: it clears no modules, which would first copy all that the child
shares with the server, and takes thirty times as long as all else that a fork needs. All children of one server share
its hash seed.
"""

import atexit
import contextlib
import ctypes
import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import TracebackType
from typing import Any, NoReturn

import psutil

from forking_popen import fork_python_children

REQUEST_BYTES = 2**22
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
LAUNCHER = ("accelerate.commands.accelerate_cli", "torch.distributed.run", "torch.distributed.launcher.api")


def preload(modules: list[str]) -> None:
    """Import all of the product, the libraries that it imports only when it trains, and these modules."""
    import latentscale

    for module in walk_packages(latentscale.__path__, "latentscale."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    for name in ("torch._dynamo", "accelerate.tracking", "sklearn.cluster", "PIL.PngImagePlugin", *LAUNCHER, *modules):
        import_module(name)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next request with its descriptors; None when the other end has gone."""
    data, descriptors, _, _ = socket.recv_fds(connection, REQUEST_BYTES, 3)
    return (json.loads(data), descriptors) if data else None


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Fork once per request; returns the request in the child, and None in the server when it is to end."""
    reports: dict[int, int] = {}
    server = os.getpid()
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake_write)
    while True:
        ready, _, _ = select.select([connection, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
            reap(reports)
        if connection not in ready:
            continue
        received = receive(connection)
        if received is None:
            end_descendants()
            return None
        request, (out, err, report) = received
        pid = fork(request)
        if pid is None:
            for descriptor in (out, err, report):
                os.close(descriptor)
            continue
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            connection.close()
            for other in (wake_read, wake_write, *reports.values()):
                os.close(other)
            become(request, out, err, report, 0 if request.get("namespaces_of") else server)
            return request
        os.close(out)
        os.close(err)
        reports[pid] = report


def fork(request: dict[str, Any]) -> int | None:
    """As `os.fork`, but where a process is named, into its namespaces; None if that process has gone."""
    model = request.get("namespaces_of")
    if model is None:
        return os.fork()
    try:
        enter_namespaces(model, "pid")
    except OSError:
        return None
    try:
        pid = os.fork()
    except OSError:  # the first process of that namespace has ended
        pid = None
    if pid == 0:
        enter_namespaces(model, "net", "uts", "mnt")
    else:
        enter_namespaces(os.getpid(), "pid")
    return pid


def enter_namespaces(model: int, *kinds: str) -> None:
    """Enter namespaces of a process; that of process ids holds for the children alone."""
    places = [os.open(f"/proc/{model}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]
    for place in places:
        if ctypes.CDLL(None, use_errno=True).setns(place, 0):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(place)


def reap(reports: dict[int, int]) -> None:
    """Report the children that have ended."""
    for pid in list(reports):
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            report = reports.pop(pid)
            # nobody may wait for it any more
            with contextlib.suppress(BrokenPipeError):
                os.write(report, f"{status} {usage.ru_utime + usage.ru_stime:.3f}\n".encode())
            os.close(report)


def end_descendants() -> None:
    """Kill all that was started here and is still there: a launcher's children outlive it where nobody ends them."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends in any way.

    Args:
        parent: its pid, or 0 if it is in another pid namespace.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before
        os.kill(os.getpid(), signal.SIGKILL)


def become(request: dict[str, Any], out: int, err: int, report: int, server: int) -> None:
    """Take the session, descriptors, folder and environment that a process of its own would have."""
    os.setsid()
    end_with_parent(server)
    # whoever reads the pid may signal the group, which is there now
    os.write(report, f"{os.getpid()}\n".encode())
    os.close(report)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
        os.close(source)
    fresh_streams(bool(getattr(sys.stdout, "write_through", False)))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[1:1] = [path for path in request["environment"].get("PYTHONPATH", "").split(os.pathsep) if path]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    forget_randomness()
    # found anew, in the new environment
    tempfile.tempdir = None


def fresh_streams(unbuffered: bool) -> None:
    """Standard streams as an interpreter makes them: those of the server know what its own descriptors can do."""
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    for name, number, errors in (("stdout", 1, "strict"), ("stderr", 2, "backslashreplace")):
        binary = open(number, "wb", 0 if unbuffered else -1, closefd=False)  # noqa: SIM115
        by_line = not unbuffered and (number == 2 or os.isatty(number))
        stream = io.TextIOWrapper(binary, "utf-8", errors, line_buffering=by_line, write_through=unbuffered)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def forget_randomness() -> None:
    """NumPy's own generator is seeded anew, as in a process of its own; Python's is at every fork."""
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def run(argv: list[str]) -> None:
    """What ``python ARGV…`` does."""
    kind, name = argv[0], argv[1] if len(argv) > 1 else ""
    if kind == "-c":
        sys.argv, sys.path[0] = ["-c", *argv[2:]], ""
        exec(compile(name, "<string>", "exec"), fresh_main())
    elif kind == "-m":
        sys.argv, sys.path[0] = [name, *argv[2:]], str(Path.cwd())
        # it runs as __main__, and an interpreter would not have imported it before
        if not hasattr(sys.modules.get(name), "__path__"):
            sys.modules.pop(name, None)
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = argv, str(Path(kind).resolve().parent)
        runpy.run_path(kind, run_name="__main__")


def run_to_the_end(argv: list[str]) -> int:
    """Run it, and what is to run at a program's end; returns the exit status, negative where SIGINT is to end it."""
    status = 0
    try:
        run(argv)
    except SystemExit as exit:
        status = exit_status(exit.code)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if not stream.closed:
                stream.flush()
        except OSError:
            status = 120
    return status


def exit_status(code: object) -> int:
    """The status that ``sys.exit(code)`` ends with; any text is printed."""
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    print(code, file=sys.stderr)
    return 1


def end(status: int) -> NoReturn:
    if status == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status)


def fresh_main() -> dict[str, Any]:
    """The namespace of a new ``__main__``."""
    main = type(sys)("__main__")
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    return main.__dict__


def report_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback without this file's own frames."""
    while trace and trace.tb_frame.f_code.co_filename in (__file__, runpy.__file__, "<frozen runpy>"):
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


def answer(connection: socket.socket) -> None:
    """Serve requests, and be each of the processes that are asked for."""
    sys.excepthook = report_error
    request = serve(connection)
    if request is not None:
        if request["forks_children"]:
            fork_python_children(start_anew)
        end(run_to_the_end(request["argv"]))


def start_anew(argv: list[str], is_unbuffered: bool) -> NoReturn:
    """What ``python ARGV…`` or ``python -u ARGV…`` does, in a fork of a process that is forked from here."""
    fresh_streams(is_unbuffered or "PYTHONUNBUFFERED" in os.environ)
    forget_randomness()
    tempfile.tempdir = None
    end(run_to_the_end(argv))


if __name__ == "__main__":
    if sys.argv[2:] != ["cold"]:
        preload(sys.argv[2:])
    # what is shared with the children is not to be copied by their garbage collectors
    gc.collect()
    gc.freeze()
    assert threading.active_count() == len(list(Path("/proc/self/task").iterdir())) == 1, (
        "a thread does not survive a fork"
    )
    answer(socket.socket(fileno=int(sys.argv[1])))
