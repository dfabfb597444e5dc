"""The processes that a launcher has started, found and ended: its agent, the ranks, and all that these started."""

import contextlib
import ctypes
import os
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
_LOOK_MILLISECONDS = 10


def adopt_orphans() -> None:
    """Become the parent of whatever processes our own leave behind, so that none is lost sight of (Linux)."""
    _control_process(_SET_CHILD_SUBREAPER, 1)


def end_with_parent() -> None:
    """Be sent SIGTERM when the parent is gone, however it went (Linux); for a child between fork and exec."""
    _control_process(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def die_with_parent() -> None:
    """Be sent SIGKILL when the parent is gone, however it went (Linux); for a child between fork and exec."""
    _control_process(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def ranks_below(process: psutil.Process) -> dict[int, psutil.Process]:
    """The direct children that an agent has given a rank, by rank."""
    found = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in process.children():
            if (rank := rank_of(child)) is not None:
                found[rank] = child
    return found


def has_unreaped(process: psutil.Process) -> bool:
    """Whether a child has ended, and the process has not noticed."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(child.status() == psutil.STATUS_ZOMBIE for child in process.children())
    return False


def exit_code(process: psutil.Process) -> int | None:
    """How a process has ended that its parent has not reaped, by a signal where below 0; None where unknown (Linux)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # after the name in brackets: the state first, the wait status as the 52nd field of all
        state, *fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        if state == "Z":
            return os.waitstatus_to_exitcode(int(fields[48]))
    return None


def tell_exits(processes: Mapping[int, psutil.Process], tell: Callable[[int, int], None]) -> None:
    """Tell the exit code of each rank the moment that it ends, in a thread: its parent may reap it soon after (Linux).

    Those that have ended already are told at once; nothing is told of those whose parent was quicker.
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
    looked_at = set(processes) - set(ranks.values())

    def wait() -> None:
        while ranks or looked_at:
            for descriptor, _ in ended.poll(_LOOK_MILLISECONDS if looked_at else None):
                rank = ranks.pop(descriptor)
                if (code := exit_code(processes[rank])) is not None:
                    tell(rank, code)
                ended.unregister(descriptor)
                os.close(descriptor)
            for rank in list(looked_at):
                if (code := exit_code(processes[rank])) is not None:
                    tell(rank, code)
                if code is not None or not processes[rank].is_running():
                    looked_at.remove(rank)

    threading.Thread(target=wait, name="exits", daemon=True).start()


def rank_of(process: psutil.Process) -> int | None:
    """The rank in a process' environment; None where it has none or cannot be read."""
    with contextlib.suppress(psutil.Error, OSError):
        rank = process.environ().get("RANK", "")
        return int(rank) if rank.isdigit() else None
    return None


def send(number: signal.Signals, processes: Iterable[psutil.Process]) -> None:
    """Signal those that are still there."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def kill_all_below(process: psutil.Process, patience_seconds: float = 30.0) -> None:
    """SIGKILL all descendants, and what they start meanwhile; one that the kernel holds is left to it after a while."""
    until = time.monotonic() + patience_seconds
    while time.monotonic() < until:
        left: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            left = [child for child in process.children(recursive=True) if lives(child)]
        if not left:
            return
        send(signal.SIGKILL, left)
        psutil.wait_procs(left, timeout=1)


def lives(process: psutil.Process) -> bool:
    """Whether it has not ended, reaped or not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


@cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _control_process(operation: int, value: int) -> None:
    if sys.platform == "linux":
        _c_library().prctl(operation, value, 0, 0, 0)
