"""``latentscale metrics``: every metric with its figures, units, directions and needs."""

import sys
from pathlib import Path

from latentscale.evaluation.registry import METRICS
from launching import Processes


def test_every_metric_is_listed_with_what_it_declares(processes: Processes) -> None:
    finished = processes.run([str(Path(sys.executable).with_name("latentscale")), "metrics"])
    assert finished.code == 0, finished.err
    rows = [[cell.strip() for cell in line.split("│")[1:5]] for line in finished.out.splitlines() if "│" in line]
    listed = {cells[0]: cells[1:3] for cells in rows if cells[0]}
    for metric in METRICS.values():
        assert metric.name in listed
        for figure in metric.figures:
            assert listed[figure.key] == [figure.unit or "none", figure.direction.name.lower()]
        assert metric.description[:30] in finished.out
    assert {cells[3] for cells in rows if cells[3]} >= {need for metric in METRICS.values() for need in metric.needs}
