"""Exit reports: how the processes of a node report to the node's launcher how the run ended.

A launcher such as ``accelerate launch`` exits with 1 whatever status a process exits with, and also exits with 1 after
a signal although every process ended as asked. So whoever starts the processes names a folder in their environment, and
each process writes a report into it.
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


class ExitReason(StrEnum):
    """Why a process ended."""

    FINISHED = "finished"
    """All steps are taken."""
    STOPPED = "stopped"
    """It was asked to stop. If it had taken a step, it wrote a checkpoint of its last one."""
    USER_ERROR = "user error"
    """An error that the user must fix first; a restart changes nothing."""
    FAILED = "failed"
    """A failure that a restart continues from: another process is gone, or a disk is full."""


SUCCESSFUL = (ExitReason.FINISHED, ExitReason.STOPPED)


@dataclass(frozen=True)
class ExitReport:
    """What one process reports.

    Attributes:
        step: steps taken, as far as the process knows.
        message: one line, unless it finished.
    """

    rank: int
    reason: ExitReason
    step: int = 0
    message: str = ""


def write_exit_report(report: ExitReport) -> None:
    """Write a report into the folder that the launcher named; without a launcher nothing is written."""
    if folder := os.environ.get(FOLDER_VARIABLE):
        # the run may have ended because a disk is full: then the launcher receives no report
        with suppress(OSError), new_file(Path(folder) / f"rank-{report.rank}.json") as new:
            new.write_text(json.dumps(report.__dict__))


def read_exit_reports(folder: Path) -> list[ExitReport]:
    """The reports of this node's processes, by rank; a killed process leaves none."""
    found = []
    for path in folder.glob("rank-*.json"):
        content = json.loads(path.read_text())
        found.append(ExitReport(content["rank"], ExitReason(content["reason"]), content["step"], content["message"]))
    return sorted(found, key=lambda report: report.rank)


def combine_exit_reasons(reports: Sequence[ExitReport], processes: int) -> ExitReason:
    """How a node's part of the run ended: a user error where any process had one, successful only where all were."""
    reasons = {report.reason for report in reports}
    if ExitReason.USER_ERROR in reasons:
        return ExitReason.USER_ERROR
    if len(reports) == processes and len(reasons) == 1:
        return reasons.pop()
    return ExitReason.FAILED
