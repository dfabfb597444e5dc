"""The step plan: divisibility, ownership of streams, and errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentscale.distributed.streams import StepPlan, divisors
from latentscale.errors import UserError


@given(st.integers(1, 64), st.integers(1, 12))
def test_every_allowed_pair_owns_each_stream_once(streams: int, stream_batch: int) -> None:
    plan = StepPlan.make(streams * stream_batch, streams, 1, 1)
    for processes, accumulation in plan.allowed():
        other = StepPlan.make(plan.batch, streams, processes, accumulation)
        owned = [stream for rank in range(processes) for stream in other.owned(rank)]
        assert owned == list(range(streams))
        assert other.microbatch * accumulation * processes == plan.batch
        assert other.stream_batch == stream_batch
    refused = {(p, a) for p in range(1, 5) for a in range(1, 5)} - set(plan.allowed())
    for processes, accumulation in refused:
        with pytest.raises(UserError, match=r"distributed\.streams"):
            StepPlan.make(plan.batch, streams, processes, accumulation)


def test_the_default_is_at_most_eight_streams_of_at_least_two() -> None:
    assert StepPlan.make(32, 0, 1, 1).streams == 8
    assert StepPlan.make(8, 0, 1, 1).streams == 4
    assert StepPlan.make(1, 0, 1, 1).streams == 1


def test_a_batch_that_does_not_divide_names_both_keys() -> None:
    with pytest.raises(UserError, match=r"training\.batch=30 .* distributed\.streams=8.*1, 2, 3, 5, 6"):
        StepPlan.make(30, 8, 1, 1)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(1, 3))
def test_a_micro_batch_holds_the_first_of_each_stream_then_the_second(
    microbatch_streams: int, stream_batch: int, processes: int, accumulation: int
) -> None:
    streams = microbatch_streams * processes * accumulation
    plan = StepPlan.make(streams * stream_batch, streams, processes, accumulation)
    rows = [divmod(number, stream_batch) for number in plan.layout().tolist()]
    expected = [
        (micro * microbatch_streams + stream, position)
        for micro in range(accumulation)
        for position in range(stream_batch)
        for stream in range(microbatch_streams)
    ]
    assert rows == expected


def test_divisors() -> None:
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
