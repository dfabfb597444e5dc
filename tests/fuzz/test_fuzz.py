"""A slice of the fuzz, the same cases each time, and what it judges wrong. ``make fuzz`` runs the rest."""

from pathlib import Path

import pytest
from kinds import KINDS, Case, means

from fuzz import Outcome, bad_message, judged, plan, run_cases, table

CASES = 300


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_wrong_input_ends_well_or_in_one_line(tmp_path: Path) -> None:
    endings = list(run_cases(plan(CASES, list(KINDS), 0), tmp_path, jobs=1))
    wrong = [ending.described() for ending in endings if ending.wrong]
    assert not wrong, "\n".join([*wrong, table(endings)])
    assert {ending.kind for ending in endings} == set(KINDS)
    # neither refuses everything nor accepts everything
    assert {ending.outcome for ending in endings} == {Outcome.OK, Outcome.REFUSED}


@pytest.mark.parametrize(
    ("status", "out", "err", "outcome"),
    [
        (0, "trained", "", Outcome.OK),
        (0, "intact", "", Outcome.SILENT),
        (2, "", "error: training.batch=0 is not allowed: it must be >= 1\n", Outcome.REFUSED),
        (2, "", "Usage: latentscale\n", Outcome.REFUSED),
        (75, "", "error: full: make room\n", Outcome.REFUSED),
        (1, "", "error: training.batch=0\n", Outcome.TRACEBACK),
        (-11, "", "", Outcome.TRACEBACK),
        (2, "", "Traceback (most recent call last):\nKeyError: 3\n", Outcome.TRACEBACK),
        (2, "", "", Outcome.MESSAGE),
        (2, "", "error: a\nb\n", Outcome.MESSAGE),
        (2, "", "error: a\nerror: b\n", Outcome.MESSAGE),
        (2, "", "error:  is not allowed: it must be >= 1\n", Outcome.MESSAGE),
        (2, "", "error: source  does not exist: use one of folder, zip\n", Outcome.MESSAGE),
        (2, "", "error: x must be a number, not <class 'list'>\n", Outcome.MESSAGE),
        (2, "", "error: a \x1b[31mred\n", Outcome.MESSAGE),
    ],
)
def test_how_a_command_ended(status: int, out: str, err: str, outcome: Outcome) -> None:
    case = Case([], check=lambda out: "silence" if "intact" in out else "")
    assert judged(status, out, err, case)[0] == outcome


def test_a_message_that_says_what_is_wrong_is_good() -> None:
    assert bad_message("note: 3 images were converted\nerror: training.batch=x: it must be an integer\n") == ""


@pytest.mark.parametrize(
    ("text", "kind", "value", "right"),
    [
        ("3", int, 3, True), ("+3", int, 3, True), ("0x10", int, 16, True), ("010", int, 8, False), ("1:30",
        int, 90, False), ("1.5", int, 1, False), ("1e3", float, 1000.0, True), ("x", float, 0.0, False), ("yes",
        bool, True, True), ("2", bool, True, False), ("a", str, "a", True), ("null", str, "None", False),
        ("[1,2]", list[int], [1, 2], True), ("[1.5]", list[int], [1], False),
    ],
)  # fmt: skip
def test_what_a_text_can_stand_for(text: str, kind: object, value: object, right: bool) -> None:
    assert means(text, kind, value) == right


def test_every_seed_has_other_cases_and_each_kind_its_share() -> None:
    first, second = plan(1000, list(KINDS), 0), plan(1000, list(KINDS), 1_000_000)
    assert not set(first) & set(second)
    assert len(first) == len(set(first)) == pytest.approx(1000, abs=10)
    assert {kind for kind, _ in first} == set(KINDS)
