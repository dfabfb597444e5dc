"""Loops that step in turns: never two at a time, with the requested number of steps, and without losing errors."""

from collections.abc import Callable

import pytest
from turns import Contestant, Ratio, ratio, rounds_of_turns, time_rounds


def counting(name: str, steps: list[str]) -> Callable[[Callable[[], bool]], None]:
    def loop(should_stop: Callable[[], bool]) -> None:
        stopping = False
        while not stopping:
            steps.append(name)
            stopping = should_stop()

    return loop


def test_loops_step_only_in_their_turns() -> None:
    steps: list[str] = []
    contestants = {name: Contestant(counting(name, steps)) for name in "ab"}
    steps.clear()
    seconds = time_rounds(contestants, rounds=2, steps=3)
    # one more step in each turn is not timed; the first of three rounds is not counted
    assert "".join(steps) == "aaaabbbbbbbbaaaa" + "bbbbaaaaaaaabbbb" + "aaaabbbbbbbbaaaa"
    assert {name: len(each) for name, each in seconds.items()} == {"a": 2, "b": 2}
    assert all(value > 0 for each in seconds.values() for value in each)
    taken = len(steps)
    for contestant in contestants.values():
        contestant.close()
    assert len(steps) == taken


def test_rounds_go_there_and_back_from_another_start() -> None:
    assert ["".join(order) for order in rounds_of_turns("abc", 4)] == ["abccba", "bcaacb", "cabbac", "abccba"]


def test_ratios_are_taken_within_rounds() -> None:
    # the machine was half as fast in the second round: the medians' ratio would be 2
    found = ratio({"a": [2.2, 4.4, 2.2], "b": [2.0, 4.0, 2.0]}, "a", "b")
    assert found.median == pytest.approx(1.1)
    assert str(Ratio([1.0, 1.25, 1.5])) == "1.250 (1.000-1.500)"


def test_a_loop_that_fails_or_ends_raises() -> None:
    def fails(should_stop: Callable[[], bool]) -> None:
        should_stop()
        raise ValueError("broken")

    contestant = Contestant(fails)
    with pytest.raises(RuntimeError) as failure:
        contestant.take(2)
    assert isinstance(failure.value.__cause__, ValueError)
    with pytest.raises(RuntimeError, match="ended"):
        Contestant(lambda should_stop: None)
