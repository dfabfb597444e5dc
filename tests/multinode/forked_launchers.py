"""Node launchers of a local cluster that are forked, with all that they start, from a process that has imported torch.

Such a cluster starts on its nodes, in the place of each launcher, ``forked_launchers.py SOCKET ARGV…``. That hands its
outputs to this process, which lets the fork server start the launcher in the namespaces of the node; it then stands for
the launcher: forwards signals to it, and ends with its status.
"""

import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

REQUEST_BYTES = 2**20
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def forked_launchers() -> Iterator[None]:
    """Local clusters fork their launchers in this context."""
    import tempfile
    import threading

    import pytest

    from forked import fork_server
    from latentscale.launching import localcluster
    from latentscale.launching.node_options import NodeOptions

    with_interpreter = localcluster.launcher_argv

    def argv(options: NodeOptions) -> list[str]:
        python, *arguments = with_interpreter(options)
        return [python, "-I", "-S", __file__, path, *arguments]

    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        pytest.MonkeyPatch.context() as patch,
    ):
        path = f"{folder}/socket"
        listener.bind(path)
        listener.listen(64)
        threading.Thread(target=pass_on, args=(listener, fork_server()), daemon=True).start()
        patch.setattr(localcluster, "launcher_argv", argv)
        yield
        # wakes the thread
        listener.shutdown(socket.SHUT_RDWR)


def pass_on(listener: socket.socket, server: socket.socket) -> None:
    """Pass every request on to the fork server, with the process id of whoever asks."""
    while True:
        try:
            asking, _ = listener.accept()
        except OSError:  # closed
            return
        with asking:
            pid, _, _ = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            data, descriptors, _, _ = socket.recv_fds(asking, REQUEST_BYTES, 3)
            if data:
                request = {**json.loads(data), "forks_children": True, "namespaces_of": pid}
                socket.send_fds(server, [json.dumps(request).encode()], descriptors)
            for descriptor in descriptors:
                os.close(descriptor)


def stand_for(path: str, argv: Sequence[str]) -> int:
    """Let the launcher be forked, and return its wait status."""
    asked: list[int] = []
    for number in FORWARDED:
        signal.signal(number, lambda number, frame: asked.append(number))
    report_read, report_write = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, REQUEST_BYTES)
        server.connect(path)
        request = {"argv": argv, "cwd": str(Path.cwd()), "environment": dict(os.environ)}
        socket.send_fds(server, [json.dumps(request).encode()], [1, 2, report_write])
    os.close(report_write)
    # both lines may be there before the first is read
    report = os.fdopen(report_read)
    pid = int(report.readline())

    def forward(number: int) -> None:
        # it may have ended before its end is reported
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    for number in FORWARDED:
        signal.signal(number, lambda number, frame: forward(number))
    for number in asked:
        forward(number)
    return int(report.readline().split()[0])


if __name__ == "__main__":
    code = os.waitstatus_to_exitcode(stand_for(sys.argv[1], sys.argv[2:]))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
