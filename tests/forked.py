"""Processes that start without importing torch: forked from a server that has imported it (see fork_server.py)."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

SERVER = Path(__file__).with_name("fork_server.py")
_SERVERS: dict[tuple[str, ...], socket.socket] = {}
_STARTING = threading.Lock()


class ForkedProcess:
    """Python with these arguments, as `subprocess.Popen` shows a process with pipes of text.

    Args:
        argv: what follows ``python``: a script, or ``-m`` or ``-c`` and what follows it, then the arguments.
        cwd: its working folder.
        environment: all of its environment.
        server: another server's connection instead of this process's.
        forks_children: fork the interpreters that it starts, too (see forking_popen.py).
    """

    def __init__(
        self, argv: Sequence[str], cwd: Path, environment: Mapping[str, str], server: socket.socket | None = None,
        forks_children: bool = False,
    ) -> None:  # fmt: skip
        self.args, self.processor_seconds = list(argv), 0.0
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        self._report, report_write = os.pipe()
        request = json.dumps({
            "argv": self.args, "cwd": str(cwd), "environment": dict(environment), "forks_children": forks_children,
        })  # fmt: skip
        written = (out_write, err_write, report_write)
        socket.send_fds(server or fork_server(), [request.encode()], written)
        for descriptor in written:
            os.close(descriptor)
        # a kill may cut a character in two
        self.stdout: TextIO = os.fdopen(out_read, errors="replace")
        self.stderr: TextIO = os.fdopen(err_read, errors="replace")
        self._read: dict[threading.Thread, list[str]] = {}
        self.pid = int(self._next_report())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative after a signal; None while the process runs."""
        return self._status(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit status.

        Raises:
            subprocess.TimeoutExpired: if the process still runs.
        """
        status = self._status(timeout)
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return status

    def communicate(self, input: None = None, timeout: float | None = None) -> tuple[str, str]:
        """Read both outputs to their ends, and wait for the process; may be called again after a timeout.

        Raises:
            subprocess.TimeoutExpired: if it still runs, or another process holds its outputs open.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._read:
            for stream in (self.stdout, self.stderr):
                lines: list[str] = []
                reader = threading.Thread(target=lines.extend, args=(stream,), daemon=True)
                self._read[reader] = lines
                reader.start()
        for reader in self._read:
            reader.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if reader.is_alive():
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        self.stdout.close()
        self.stderr.close()
        out, err = ("".join(lines) for lines in self._read.values())
        return out, err

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _status(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            # not select, whose descriptors must be below 1,024
            ended = select.poll()
            ended.register(self._report, select.POLLIN)
            if ended.poll(None if timeout is None else 1000 * timeout):
                status, seconds = self._next_report().split()
                os.close(self._report)
                self.returncode = os.waitstatus_to_exitcode(int(status))
                self.processor_seconds = float(seconds)
        return self.returncode

    def _next_report(self) -> str:
        """The next line of two: the pid, and how the process ended; both may be there before the first is read."""
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(self._report, 1)
            assert byte, "the fork server has ended: see its traceback"
            line += byte
        return line.decode()


def fork_server(path: str = "", modules: Sequence[str] = ()) -> socket.socket:
    """The connection to a server of this process's, which is started once and ends with this process.

    Args:
        path: a PYTHONPATH with another copy of the package.
        modules: that it has imported besides those of the product.
    """
    key = (path, *modules)
    with _STARTING:
        if key not in _SERVERS:
            _SERVERS[key] = _start_server(path, modules)
        return _SERVERS[key]


def server_environment(path: str = "") -> dict[str, str]:
    """The environment that a server is started with.

    Args:
        path: a PYTHONPATH with another copy of the package.
    """
    return {
        **os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true",
        # room for a child's environment in the place of the server's
        "ROOM": "x" * 32_000, **({"PYTHONPATH": path} if path else {}),
    }  # fmt: skip


def _start_server(path: str, modules: Sequence[str]) -> socket.socket:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        ours.setsockopt(socket.SOL_SOCKET, buffer, 2**22)
        its.setsockopt(socket.SOL_SOCKET, buffer, 2**22)
    number = its.fileno()
    subprocess.Popen(
        [sys.executable, str(SERVER), str(number), *modules], pass_fds=[number], env=server_environment(path),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    its.close()
    return ours
