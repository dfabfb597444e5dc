"""A vector piggybacked on DDP's gradients: its sums over three real processes are those worked out by hand.

The processes add 0.1 · (rank + 1) · (element + 1) + step, which sums to 0.6 · (element + 1) + 3 · step.
"""

import json
import sys
from typing import Any

import pytest
from piggyback import ACCUMULATIONS, PRECISIONS, SIZE, STEPS

from launching import ROOT, Processes

SCRIPT = ROOT / "tests" / "distributed" / "piggyback.py"
TOLERANCES = {"fp32": 1e-6, "fp64": 1e-14}

pytestmark = pytest.mark.processes

Found = list[dict[str, Any]]
"""The records of each process for one precision and accumulation."""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """The records of each process."""
    folder, processes = tmp_path_factory.mktemp("piggyback"), Processes()
    try:
        for process in processes.start_ranks(3, [sys.executable, str(SCRIPT), str(folder)]):
            _, err = process.communicate(timeout=100)
            assert process.returncode == 0, err
    finally:
        processes.close()
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(3)]


@pytest.fixture(params=[f"{precision}-{accumulation}" for precision in PRECISIONS for accumulation in ACCUMULATIONS])
def found(request: pytest.FixtureRequest, records: Found) -> Found:
    return [record[request.param] for record in records]


@pytest.fixture
def tolerance(request: pytest.FixtureRequest, found: Found) -> float:
    return TOLERANCES[request.node.callspec.params["found"].split("-")[0]]


def by_hand(step: str) -> list[float]:
    return [0.6 * (element + 1) + 3 * STEPS.index(step) for element in range(SIZE)]


@pytest.mark.parametrize("step", ["first", "second", "after one that was left", "after none", "last"])
def test_sums_are_those_worked_out_by_hand(step: str, found: Found, tolerance: float) -> None:
    for record in found:
        assert record["steps"][step]["sums"] == pytest.approx(by_hand(step), rel=tolerance, abs=0)


def test_an_empty_carrier_adds_nothing(found: Found) -> None:
    for record in found:
        assert record["steps"]["none"]["sums"] == [-1] * SIZE  # as the script left it


def test_a_nan_affects_only_its_own_element(found: Found, tolerance: float) -> None:
    expected = by_hand("not a number")
    expected[2] = float("nan")
    for record in found:
        sums = record["steps"]["not a number"]["sums"]
        assert sums == pytest.approx(expected, rel=tolerance, abs=0, nan_ok=True)


@pytest.mark.parametrize("step", STEPS)
def test_gradients_are_those_without_a_piggyback(step: str, found: Found, tolerance: float) -> None:
    for record in found:
        assert record["steps"][step]["gradients"] <= tolerance


def test_the_carrier_is_the_first_of_the_first_bucket(found: Found) -> None:
    for record in found:
        assert len(record["buckets"]) > 1
        assert record["buckets"][0][0] == record["carrier"]
