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
from functools import cache
from pathlib import Path
from typing import TextIO

SERVER = Path(__file__).with_name("fork_server.py")


class ForkedProcess:
    """Python with these arguments, as `subprocess.Popen` shows a process with pipes of text.

    Args:
        argv: what follows ``python``: a script, or ``-m`` or ``-c`` and what follows it, then the arguments.
        cwd: its working folder.
        environment: all of its environment.
        forks_children: fork the interpreters that it starts, too (see forking_popen.py).
        modules: that it has imported besides those of the product.
    """

    def __init__(
        self, argv: Sequence[str], cwd: Path, environment: Mapping[str, str], forks_children: bool = False,
        modules: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.args, self.processor_seconds = list(argv), 0.0
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        self._report, report_write = os.pipe()
        request = json.dumps({
            "argv": self.args, "cwd": str(cwd), "environment": dict(environment), "forks_children": forks_children,
        })  # fmt: skip
        written = (out_write, err_write, report_write)
        socket.send_fds(fork_server(*modules), [request.encode()], written)
        for descriptor in written:
            os.close(descriptor)
        self.stdout: TextIO = os.fdopen(out_read)
        self.stderr: TextIO = os.fdopen(err_read)
        self._read: dict[threading.Thread, list[str]] = {}
        self.pid = int(os.read(self._report, 100))
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
        if self.returncode is None and select.select([self._report], [], [], timeout)[0]:
            report = os.read(self._report, 100)
            os.close(self._report)
            assert report, "the fork server has ended before its child"
            status, seconds = report.split()
            self.returncode = os.waitstatus_to_exitcode(int(status))
            self.processor_seconds = float(seconds)
        return self.returncode


@cache
def fork_server(*modules: str) -> socket.socket:
    """The connection to this process's server with these modules, which is started once and ends with this process."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        ours.setsockopt(socket.SOL_SOCKET, buffer, 2**22)
        its.setsockopt(socket.SOL_SOCKET, buffer, 2**22)
    number = its.fileno()
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true",
        # room for a child's environment in the place of the server's
        "ROOM": "x" * 32_000,
    }  # fmt: skip
    subprocess.Popen(
        [sys.executable, str(SERVER), str(number), *modules], pass_fds=[number], env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    its.close()
    return ours
