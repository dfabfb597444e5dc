"""What node launchers start in these tests: processes that meet and step together, stop together, and tell their end.

`talker.py FOLDER STEPS [HOW]`: every process leaves `FOLDER/started-RANK-RESTARTS` first. HOW it ends:

- nothing: after STEPS steps of a few milliseconds, or once any process was told to stop;
- `refuse`: by something that a user must mend, on rank 1;
- `lose`: rank 0 by a full disk, every time;
- `hang`: rank 1 stays in a step for ever, whatever it is told.
"""

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from latentscale.launching.command import RESTARTS_VARIABLE
from latentscale.launching.endings import Ending, ProcessEnding, tell_ending


def main(folder: Path, steps: int, how: str) -> None:
    rank = int(os.environ["RANK"])
    (folder / f"started-{rank}-{os.environ[RESTARTS_VARIABLE]}").touch()
    asked = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: asked.append(number))
    if how == "refuse" and rank == 1:
        tell_ending(ProcessEnding(rank, Ending.REFUSED, 0, "training.batch=0"))
        sys.exit(2)
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    (folder / f"trains-{rank}").touch()
    for step in range(1, steps + 1):
        if how == "lose" and rank == 0 and step == 3:
            tell_ending(ProcessEnding(rank, Ending.LOST, step, "the disk is full"))
            sys.exit(1)
        while how == "hang" and rank == 1:
            time.sleep(1)
        stop = torch.tensor([float(len(asked) > 0)])
        try:
            dist.all_reduce(stop)
        except RuntimeError:
            tell_ending(ProcessEnding(rank, Ending.LOST, step, "lost contact"))
            os._exit(1)
        if stop.item():
            break
        time.sleep(0.005)
    ending = Ending.FINISHED if step == steps else Ending.STOPPED
    print(f"rank {rank}: {ending} at step {step}", flush=True)
    tell_ending(ProcessEnding(rank, ending, step))
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
