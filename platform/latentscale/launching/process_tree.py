"""The processes that a launcher has started: its agent, the ranks and their children; finding and ending them."""

import contextlib
import ctypes
import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

import psutil

_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36
_POLL_MILLISECONDS = 10


def adopt_orphans() -> None:
    """Become the parent of all processes that our own children leave behind, so that none escapes (Linux)."""
    _control_process(_SET_CHILD_SUBREAPER, 1)


def terminate_with_parent() -> None:
    """Receive SIGTERM when the parent ends, however it ends (Linux); for a child between fork and exec."""
    _control_process(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def kill_with_parent() -> None:
    """Receive SIGKILL when the parent ends, however it ends (Linux); for a child between fork and exec."""
    _control_process(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def child_ranks(process: psutil.Process) -> dict[int, psutil.Process]:
    """The direct children of an agent that have a rank, by rank."""
    found = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in process.children():
            if (rank := rank_of(child)) is not None:
                found[rank] = child
    return found


def has_zombie_child(process: psutil.Process) -> bool:
    """Whether a child has ended and the process has not reaped it yet."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(child.status() == psutil.STATUS_ZOMBIE for child in process.children())
    return False


def exit_code(process: psutil.Process) -> int | None:
    """The exit code of a process that ended and was not reaped, negative for a signal; None where unknown (Linux)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # after the name in brackets: the state first, the wait status as the 52nd field of all
        state, *fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        if state == "Z":
            return os.waitstatus_to_exitcode(int(fields[48]))
    return None


def watch_exits(processes: Mapping[int, psutil.Process], on_exit: Callable[[int, int], None]) -> None:
    """Call ``on_exit(rank, exit code)`` in a thread when a rank ends, before its parent may reap it (Linux).

    It is called at once for processes that have ended already, and never for those that their parent reaped first.
    """
    if sys.platform != "linux" or not processes:
        return
    ended, ranks = select.poll(), {}
    for rank, process in processes.items():
        # not every build of Python has it, and not every sandbox allows it
        with contextlib.suppress(OSError, AttributeError):
            descriptor = os.pidfd_open(process.pid)
            ended.register(descriptor, select.POLLIN)
            ranks[descriptor] = rank
    polled = set(processes) - set(ranks.values())

    def wait() -> None:
        while ranks or polled:
            for descriptor, _ in ended.poll(_POLL_MILLISECONDS if polled else None):
                rank = ranks.pop(descriptor)
                if (code := exit_code(processes[rank])) is not None:
                    on_exit(rank, code)
                ended.unregister(descriptor)
                os.close(descriptor)
            for rank in list(polled):
                if (code := exit_code(processes[rank])) is not None:
                    on_exit(rank, code)
                if code is not None or not processes[rank].is_running():
                    polled.remove(rank)

    threading.Thread(target=wait, name="exits", daemon=True).start()


def rank_of(process: psutil.Process) -> int | None:
    """The rank in a process's environment; None where it has none or cannot be read."""
    with contextlib.suppress(psutil.Error, OSError):
        rank = process.environ().get("RANK", "")
        return int(rank) if re.fullmatch("[0-9]{1,9}", rank) else None
    return None


def send_signal(number: signal.Signals, processes: Iterable[psutil.Process]) -> None:
    """Signal the processes that still exist."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def kill_descendants(process: psutil.Process, patience_seconds: float = 30.0) -> None:
    """SIGKILL all descendants, and what they start meanwhile; gives up on one that stays blocked in the kernel."""
    until = time.monotonic() + patience_seconds
    while time.monotonic() < until:
        left: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            left = [child for child in process.children(recursive=True) if is_alive(child)]
        if not left:
            return
        send_signal(signal.SIGKILL, left)
        psutil.wait_procs(left, timeout=1)


def is_alive(process: psutil.Process) -> bool:
    """Whether it has not ended; a zombie has."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


@cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _control_process(operation: int, value: int) -> None:
    if sys.platform == "linux":
        _c_library().prctl(operation, value, 0, 0, 0)
