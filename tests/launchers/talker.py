"""What node launchers start in these tests: processes that meet and step together, stop together, and tell their end.

`talker.py FOLDER STEPS [HOW]`. They do as recipes do, over plain sockets: without torch they start at once. Every
process leaves `FOLDER/started-RANK-RESTARTS` first, and `FOLDER/trains-RANK` once they have met. HOW it ends:

- nothing: after STEPS steps of a few milliseconds, or once any process was told to stop;
- `refuse`: by something that a user must mend, on rank 1, before they meet;
- `lose`: rank 0 by a full disk, every time;
- `hang`: rank 1 stays in a step for ever, whatever it is told;
- `import`: no rank gets beyond its imports, where a signal ends it;
- `import-0`: rank 0 does not, and the others wait for it, and say that they were stopped when they are told to;
- `crash`: no rank gets beyond its imports, and whatever it is told breaks it.
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

from latentscale.atomic import new_file
from latentscale.launching.endings import Ending, ProcessEnding, tell_ending
from latentscale.launching.restarts import RESTARTS_VARIABLE


class Group:
    """All processes, in a star around rank 0."""

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
        """Whether any process says so; ConnectionError where another has gone."""
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
            tell_ending(ProcessEnding(rank, Ending.STOPPED))
            sys.exit(0)

    if how == "crash":
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(3))
    if how in ("import", f"import-{rank}", "crash"):
        time.sleep(600)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, take)
    if how == "refuse" and rank == 1:
        tell_ending(ProcessEnding(rank, Ending.REFUSED, 0, "training.batch=0"))
        sys.exit(2)
    group = Group(folder, rank, int(os.environ.get("WORLD_SIZE", "1")))
    (folder / f"trains-{rank}").touch()
    step, stop = 0, False
    while step < steps and not stop:
        step += 1
        if how == "lose" and rank == 0 and step == 3:
            tell_ending(ProcessEnding(rank, Ending.LOST, step, "the disk is full"))
            sys.exit(1)
        while how == "hang" and rank == 1:
            time.sleep(1)
        try:
            stop = group.any(bool(asked))
        except OSError:
            tell_ending(ProcessEnding(rank, Ending.LOST, step, "lost contact"))
            sys.exit(1)
        time.sleep(0.005)
    ending = Ending.STOPPED if stop else Ending.FINISHED
    print(f"rank {rank}: {ending} at step {step}", flush=True)
    tell_ending(ProcessEnding(rank, ending, step))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
