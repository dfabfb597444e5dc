"""Makes `subprocess.Popen` fork this process where it would start a Python interpreter.

For launchers: the agent that a launcher starts, and the ranks that the agent starts, are children as they always are,
with the same process ids, sessions, descriptors, environments and exit statuses, but none of them imports torch again.

A child differs from an interpreter that was just started as a child of the fork server does (see fork_server.py).

No thread of the parent goes on in the child, and a lock that one of them held stays locked there. Python and glibc free
their own locks after a fork (imports, logging, threads, malloc, stdio). So the parent forks only from its main thread,
and only beside threads that are known to hold no other lock that the child takes; beside any other thread, and for
whatever else is not provided for here, it starts an interpreter. Two are known: a worker of an executor that waits for
work (asyncio resolves names in one), and the C++ thread of a TCPStore's server, whose locks are the store's own; a rank
opens another store.
"""

import asyncio
import atexit
import contextlib
import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
import traceback
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.thread import _worker
from pathlib import Path
from typing import Any, NoReturn

_EXEC = subprocess.Popen._execute_child  # type: ignore[attr-defined]
_STORE_SERVER = "pt_tcpstore_uv"
_FINALIZERS: dict[Any, Any] = weakref.finalize._registry  # type: ignore[attr-defined]
_exit_functions: list[Callable[..., object]] = []
_finalizers_before: set[Any] = set()


def fork_python_children(run: Callable[[list[str], bool], NoReturn]) -> None:
    """From now on, fork instead of starting ``sys.executable``.

    Args:
        run: does what ``python ARGV…`` does, or ``python -u ARGV…`` where the second argument is true, to the end of
            the process.
    """
    record_exit_functions()

    def execute_child(self: subprocess.Popen[Any], *arguments: Any) -> None:
        argv, is_unbuffered = python_arguments(arguments[0])
        if argv and can_fork(*arguments):
            fork_child(self, run, argv, is_unbuffered, *arguments)
        else:
            _EXEC(self, *arguments)

    subprocess.Popen._execute_child = execute_child  # type: ignore[attr-defined]


def record_exit_functions() -> None:
    """Record what is to run at this process's end from now on: it is not to run at a child's."""
    register = atexit.register

    def recorded(function: Callable[..., Any], *arguments: Any, **named: Any) -> Callable[..., Any]:
        _exit_functions.append(function)
        return register(function, *arguments, **named)

    atexit.register = recorded  # type: ignore[assignment]
    _finalizers_before.update(_FINALIZERS)


def python_arguments(command: Any) -> tuple[list[str], bool]:
    """What follows ``python`` or ``python -u``, and whether there was a -u; empty for other commands and options."""
    if isinstance(command, str | bytes | os.PathLike) or command[0] != sys.executable:
        return [], False
    is_unbuffered = list(command[1:2]) == ["-u"]
    argv = [os.fspath(part) for part in command[2 if is_unbuffered else 1 :]]
    has_options = not argv or (argv[0].startswith("-") and argv[0] not in ("-c", "-m"))
    return ([] if has_options else argv), is_unbuffered


def can_fork(
    command: Sequence[str], executable: None, preexec_fn: Callable[[], object] | None, close_fds: bool,
    pass_fds: Sequence[int], cwd: str | None, env: Mapping[str, str] | None, startupinfo: None, creationflags: int,
    shell: bool, *others: Any,
) -> bool:  # fmt: skip
    """Whether a fork can do what ``Popen._execute_child``, whose arguments these are, would do."""
    *user_and_umask, _, process_group = others[7:]
    has_own_user = any(value not in (None, -1) for value in (*user_and_umask, process_group))
    if not close_fds or pass_fds or executable or shell or has_own_user or not Path(cwd or ".").is_dir():
        return False
    # those that the interpreter reads at its start
    theirs, ours = (
        {name: value for name, value in each.items() if name.startswith("PYTHON")}
        for each in (os.environ if env is None else env, os.environ)
    )
    return theirs == ours and threading.current_thread() is threading.main_thread() and not strange_threads()


def strange_threads() -> list[str]:
    """The names of the threads beside which this process is not to fork."""
    frames = sys._current_frames()
    idle = {
        thread.native_id
        for thread in threading.enumerate()
        if thread.ident in frames and frames[thread.ident].f_code is _worker.__code__
    }
    found = []
    for task in Path("/proc/self/task").iterdir():
        # one that ends meanwhile is no danger
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            name = (task / "comm").read_text().strip()
            if int(task.name) not in (os.getpid(), *idle) and name != _STORE_SERVER:
                found.append(name)
    return found


def fork_child(
    process: Any, run: Callable[[list[str], bool], NoReturn], argv: list[str], is_unbuffered: bool,
    command: Sequence[str], executable: None, preexec_fn: Callable[[], object] | None, close_fds: bool,
    pass_fds: Sequence[int], cwd: str | None, env: Mapping[str, str] | None, startupinfo: None, creationflags: int,
    shell: bool, p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int, errread: int, errwrite: int,
    restore_signals: bool, *identity: Any,
) -> None:  # fmt: skip
    """Fork in the place of ``Popen._execute_child``, whose arguments these are."""
    starts_session = identity[-2]
    environment = dict(os.environ if env is None else env)
    # the child is not to write it too
    for stream in (sys.stdout, sys.stderr):
        # it may be closed, or None
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    # a signal must not find the handlers of this process in the child
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks from several threads
            pid = os.fork()
        if pid == 0:
            try:
                # what the parent has open loses its descriptor here: destroying it would close another one
                gc.freeze()
                for number, target in ((p2cread, 0), (c2pwrite, 1), (errwrite, 2)):
                    if number >= 0:
                        os.dup2(number, target)
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                if starts_session:
                    os.setsid()
                if cwd is not None:
                    os.chdir(cwd)
                if preexec_fn:
                    preexec_fn()
                forget_parent()
                os.environ.clear()
                os.environ.update(environment)
                show_environment(environment)
                signal.pthread_sigmask(signal.SIG_SETMASK, masked)
                run(argv, is_unbuffered)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(120)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
    process.pid, process._child_created = pid, True
    process._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)


def forget_parent() -> None:
    """Drop what an interpreter that was just started does not have: handlers, exit functions, an event loop."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.set_event_loop_policy(None)
    for function in _exit_functions:
        atexit.unregister(function)
    _exit_functions.clear()
    # they would remove the parent's temporary folders
    for finalizer in set(_FINALIZERS) - _finalizers_before:
        del _FINALIZERS[finalizer]
    # the next one is to register what runs them, which may have been the parent's
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]


def show_environment(environment: Mapping[str, str]) -> None:
    """Let /proc/PID/environ show this environment: overwrite the one that this process was started with."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])
    block = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())
    assert len(block) < end - start, "the fork server needs a longer environment"
    ctypes.memmove(start, block.ljust(end - start, b"\0"), end - start)
