"""How the processes of a node tell the launcher beside them how the run ended.

A launcher such as ``accelerate launch`` reports 1 for whatever a process exits with, and 1 after a signal although all
processes ended well. So who starts them names a folder in the environment, and every process leaves a file in it.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from latentscale.atomic import new_file

FOLDER_VARIABLE = "LATENTSCALE_ENDINGS_FOLDER"


class Ending(StrEnum):
    """How a process ended."""

    FINISHED = "finished"
    """All steps are taken."""
    STOPPED = "stopped"
    """It was asked to stop, and a checkpoint of its last step stands, where it had taken one."""
    REFUSED = "refused"
    """By something that a user must mend first; starting again changes nothing."""
    LOST = "lost"
    """By something from which starting again continues: another process has gone, or a disk is full."""


@dataclass(frozen=True)
class ProcessEnding:
    """What one process says.

    Attributes:
        step: steps taken, as far as it knows.
        reason: one line, where it did not finish.
    """

    rank: int
    ending: Ending
    step: int = 0
    reason: str = ""


def tell_ending(ending: ProcessEnding) -> None:
    """Leave word in the folder that the launcher named; without one nothing is done."""
    if folder := os.environ.get(FOLDER_VARIABLE):
        # what has ended the run may be a full disk, of which the launcher then hears nothing
        with suppress(OSError), new_file(Path(folder) / f"rank-{ending.rank}.json") as new:
            new.write_text(json.dumps(ending.__dict__))


def read_endings(folder: Path) -> list[ProcessEnding]:
    """What the processes of this node have left, by rank; a killed one leaves nothing."""
    found = []
    for path in folder.glob("rank-*.json"):
        said = json.loads(path.read_text())
        found.append(ProcessEnding(said["rank"], Ending(said["ending"]), said["step"], said["reason"]))
    return sorted(found, key=lambda ending: ending.rank)


def joint_ending(endings: Sequence[ProcessEnding], processes: int) -> Ending:
    """How a node's part of the run ended: refused where any process was, and well only where all did."""
    kinds = {ending.ending for ending in endings}
    if Ending.REFUSED in kinds:
        return Ending.REFUSED
    if len(endings) == processes and len(kinds) == 1:
        return kinds.pop()
    return Ending.LOST
