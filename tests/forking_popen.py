"""Makes `subprocess.Popen` fork this process where it would start a Python interpreter.

For launchers: the agent that a launcher starts, and the ranks that the agent starts, are children as they always are,
with the same process ids, sessions, descriptors, environments and exit statuses, but none of them imports torch again.

A child differs from an interpreter that was just started as a child of the fork server does (see fork_server.py).
A launcher may have threads when it forks: that of a rendezvous's heartbeat, and the C++ one of a store. None goes on in
the child, and the child uses nothing that they may have held: Python and glibc free their own locks after a fork
(imports, logging, malloc), and a rank opens a store and a logger of its own.
"""

import asyncio
import atexit
import ctypes
import gc
import os
import signal
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

_EXEC = subprocess.Popen._execute_child  # type: ignore[attr-defined]


def fork_python_children(run: Callable[[list[str]], NoReturn]) -> None:
    """From now on, fork instead of starting ``sys.executable``.

    Args:
        run: does what ``python ARGV…`` does, to the end of the process.
    """

    def execute_child(self: subprocess.Popen[Any], *arguments: Any) -> None:
        argv, is_unbuffered = python_arguments(arguments[0])
        if argv:
            fork_child(self, run, argv, is_unbuffered, *arguments)
        else:
            _EXEC(self, *arguments)

    subprocess.Popen._execute_child = execute_child  # type: ignore[attr-defined]


def python_arguments(command: Any) -> tuple[list[str], bool]:
    """What follows ``python`` or ``python -u``, and whether there was a -u; empty for other commands and options."""
    if isinstance(command, str | bytes | os.PathLike) or command[0] != sys.executable:
        return [], False
    is_unbuffered = list(command[1:2]) == ["-u"]
    argv = [os.fspath(part) for part in command[2 if is_unbuffered else 1 :]]
    has_options = not argv or (argv[0].startswith("-") and argv[0] not in ("-c", "-m"))
    return ([] if has_options else argv), is_unbuffered


def fork_child(
    process: Any, run: Callable[[list[str]], NoReturn], argv: list[str], is_unbuffered: bool, command: Sequence[str],
    executable: None, preexec_fn: Callable[[], object] | None, close_fds: bool, pass_fds: Sequence[int],
    cwd: str | None, env: Mapping[str, str] | None, startupinfo: None, creationflags: int, shell: bool,
    p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int, errread: int, errwrite: int, restore_signals: bool,
    *identity: Any,
) -> None:  # fmt: skip
    """Fork in the place of ``Popen._execute_child``, whose arguments these are."""
    starts_session = identity[-2]
    assert close_fds
    assert not any((shell, executable, pass_fds))
    environment = dict(os.environ if env is None else env)
    sys.stdout.flush()
    sys.stderr.flush()
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
                if is_unbuffered:
                    for stream in (sys.stdout, sys.stderr):
                        stream.reconfigure(write_through=True)  # type: ignore[union-attr]
                signal.pthread_sigmask(signal.SIG_SETMASK, masked)
                run(argv)
            finally:
                os._exit(120)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
    process.pid, process._child_created = pid, True
    process._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)


def forget_parent() -> None:
    """Drop what an interpreter that was just started does not have: handlers, exit functions, a running loop."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio._set_running_loop(None)
    asyncio.set_event_loop(None)
    atexit._clear()
    # they would remove the parent's temporary folders
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]


def show_environment(environment: Mapping[str, str]) -> None:
    """Let /proc/PID/environ show this environment: overwrite the one that this process was started with."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])
    block = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())
    assert len(block) < end - start, "the fork server needs a longer environment"
    ctypes.memmove(start, block.ljust(end - start, b"\0"), end - start)
