"""The workers that node launchers start in these tests: they connect, step and stop together, and write exit reports.

`stub_worker.py FOLDER STEPS [HOW]`. They behave like recipes, over plain sockets: without torch they start at once.
Each process creates `FOLDER/started-RANK-RESTARTS` first, and `FOLDER/trains-RANK` once connected. HOW it ends:

- nothing: after STEPS steps of a few milliseconds, or once any process was asked to stop;
- `refuse`: with a user error, on rank 1, before they are connected;
- `lose`: rank 0 with a full disk, every time;
- `hang`: rank 1 stays in a step for ever, whatever signal it gets;
- `import`: no rank gets beyond its imports, where a signal ends it;
- `import-0`: rank 0 does not; the others wait for it, and report that they were stopped when asked to;
- `crash`: no rank gets beyond its imports, and any signal crashes it.
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

from latentscale.atomic import new_file
from latentscale.launching.exit_reports import ExitReason, ExitReport, write_exit_report
from latentscale.launching.restarts import RESTARTS_VARIABLE


class Group:
    """All processes, connected in a star around rank 0."""

    def __init__(self, folder: Path, rank: int, processes: int) -> None:
        place = folder / f"port-{os.environ[RESTARTS_VARIABLE]}"
        if rank == 0:
            listener = socket.create_server(("", 0))
            with new_file(place) as new:
                new.write_text(str(listener.getsockname()[1]))
            self._links = [listener.accept()[0] for _ in range(processes - 1)]
        else:
            while not place.exists():
                time.sleep(0.02)
            self._links = [socket.create_connection((os.environ["MASTER_ADDR"], int(place.read_text())))]
        self._rank = rank

    def any(self, mine: bool) -> bool:
        """Whether the flag is set on any process. Raises ConnectionError if another process is gone."""
        if self._rank:
            self._links[0].sendall(bytes([mine]))
            return self._receive(self._links[0])
        together = any([mine, *[self._receive(link) for link in self._links]])
        for link in self._links:
            link.sendall(bytes([together]))
        return together

    @staticmethod
    def _receive(link: socket.socket) -> bool:
        if not (said := link.recv(1)):
            raise ConnectionError
        return said != b"\0"


def main(folder: Path, steps: int, how: str) -> None:
    rank = int(os.environ.get("RANK", "0"))
    (folder / f"started-{rank}-{os.environ[RESTARTS_VARIABLE]}").touch()
    asked: list[int] = []

    def take(number: int, frame: object) -> None:
        asked.append(number)
        if not (folder / f"trains-{rank}").exists():
            write_exit_report(ExitReport(rank, ExitReason.STOPPED))
            sys.exit(0)

    if how == "crash":
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(3))
    if how in ("import", f"import-{rank}", "crash"):
        time.sleep(600)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, take)
    if how == "refuse" and rank == 1:
        write_exit_report(ExitReport(rank, ExitReason.USER_ERROR, 0, "training.batch=0"))
        sys.exit(2)
    group = Group(folder, rank, int(os.environ.get("WORLD_SIZE", "1")))
    (folder / f"trains-{rank}").touch()
    step, stop = 0, False
    while step < steps and not stop:
        step += 1
        if how == "lose" and rank == 0 and step == 3:
            write_exit_report(ExitReport(rank, ExitReason.FAILED, step, "the disk is full"))
            sys.exit(1)
        while how == "hang" and rank == 1:
            time.sleep(1)
        try:
            stop = group.any(bool(asked))
        except OSError:
            write_exit_report(ExitReport(rank, ExitReason.FAILED, step, "lost contact"))
            sys.exit(1)
        time.sleep(0.005)
    ending = ExitReason.STOPPED if stop else ExitReason.FINISHED
    print(f"rank {rank}: {ending} at step {step}", flush=True)
    write_exit_report(ExitReport(rank, ending, step))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
