"""Starts N connected processes of one script on this machine: ``python ranks.py N PORT SCRIPT ARGUMENTS…``.

As ``accelerate launch`` does, but each process is forked from this one, with all that it has imported. Once one has
failed, the others are asked to end, and killed after half a minute. Ends with status 0, or 1 if one has failed. They
end with this process, even if it is killed.
"""

import contextlib
import os
import runpy
import signal
import sys
import time
from pathlib import Path

from fork_server import end_with_parent, forget_randomness

GRACE_SECONDS = 30.0


PASSED_ON = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}


def fork_ranks(count: int, port: str) -> set[int]:
    """Fork the processes; returns their pids here, and none in each of them.

    From the first one on, this process passes signals on to them: they may have begun, and be seen, before it goes on.
    """
    pids: set[int] = set()
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: send(pids, number))
    for rank in range(count):
        pid = os.fork()
        if pid == 0:
            end_with_parent(parent)
            for number, handler in PASSED_ON.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
            forget_randomness()
            os.environ |= {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            }  # fmt: skip
            return set()
        pids.add(pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    return pids


def wait_for_all(running: set[int]) -> int:
    """Removes each process that has ended; returns 0 when all have ended well, otherwise 1."""
    failed, give_up = False, float("inf")
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            if time.monotonic() > give_up:
                send(running, signal.SIGKILL)
            time.sleep(0.005)
            continue
        running.discard(pid)
        if status and not failed:
            failed, give_up = True, time.monotonic() + GRACE_SECONDS
            send(running, signal.SIGTERM)
    return int(failed)


def send(pids: set[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it may have ended and be waited for just now
            os.kill(pid, number)


def main() -> None:
    count, port, sys.argv = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    pids = fork_ranks(count, port)
    if pids:
        sys.exit(wait_for_all(pids))
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
