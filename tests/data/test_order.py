"""The order of data: every sample once an epoch, mixed within a window, and nothing else decides."""

import pickle
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentscale.data.order import Order
from latentscale.errors import UserError
from latentscale.latents.draws import Purpose

few = settings(max_examples=60)

counts_and_streams = st.lists(st.integers(1, 30), min_size=1, max_size=8).flatmap(
    lambda counts: st.tuples(st.just(np.array(counts)), st.integers(1, min(sum(counts), 12)))
)
seeds = st.integers(0, 2**64 - 1)
windows = st.integers(1, 50)
epochs = st.integers(0, 1000)


def places_by_definition(counts: np.ndarray, seed: int, window: int, epoch: int) -> list[tuple[int, int]]:
    """The epoch's N samples in order, built whole from the definition: permute, lay end to end, shuffle windows."""

    def permuted(items: list, purpose: Purpose, block: int) -> list:
        words = np.random.Philox(
            key=np.array([seed, int(purpose)], dtype=np.uint64),
            counter=np.array([0, 0, epoch, block], dtype=np.uint64),
        ).random_raw(len(items))
        return [item for _, item in sorted(zip(words.tolist(), items, strict=True))]

    laid = [
        (shard, member)
        for shard in permuted(list(range(len(counts))), Purpose.ORDER_SHARDS, 0)
        for member in range(counts[shard])
    ]
    shuffled = []
    for start in range(0, len(laid), window):
        positions = list(range(start, min(start + window, len(laid))))
        shuffled += [laid[p] for p in permuted(positions, Purpose.ORDER_WINDOW, start // window)]
    return shuffled


@few
@given(counts_and_streams, seeds, windows, epochs)
def test_every_sample_at_most_once_an_epoch_and_n_mod_s_sit_out(shape, seed, window, epoch):
    counts, streams = shape
    order = Order(counts, streams, seed, window)
    each = order.samples_per_epoch_per_stream
    assert each == sum(counts) // streams
    seen = [
        (int(shard), int(member))
        for stream in range(streams)
        for shard, member in zip(*order.locate_run(stream, epoch * each, each), strict=True)
    ]
    assert all(0 <= member < counts[shard] for shard, member in seen)
    assert len(set(seen)) == len(seen) == sum(counts) - sum(counts) % streams


@few
@given(counts_and_streams, seeds, windows, epochs)
def test_streams_read_the_defined_order_from_their_own_place(shape, seed, window, epoch):
    counts, streams = shape
    total = int(sum(counts))
    whole = places_by_definition(counts, seed, window, epoch)
    order = Order(counts, streams, seed, window)
    each = total // streams
    for stream in range(streams):
        first = stream * total // streams
        run = order.locate_run(stream, epoch * each, each)
        assert list(zip(*(part.tolist() for part in run), strict=True)) == whole[first : first + each]


@pytest.mark.slow
@few
@given(counts_and_streams, seeds, windows, st.data())
def test_random_access_in_any_sequence_is_the_sequential_order(shape, seed, window, data):
    counts, streams = shape
    order = Order(counts, streams, seed, window)
    stream = data.draw(st.integers(0, streams - 1))
    start = data.draw(st.integers(0, 10_000))
    shards, members = order.locate_run(stream, start, 40)
    copy = pickle.loads(pickle.dumps(order))
    for offset in data.draw(st.permutations(range(40))):
        expected = (int(shards[offset]), int(members[offset]))
        assert copy.locate(stream, start + offset) == expected
    cut = data.draw(st.integers(0, 40))
    parts = [order.locate_run(stream, start, cut), order.locate_run(stream, start + cut, 40 - cut)]
    assert np.concatenate([part[0] for part in parts]).tolist() == shards.tolist()
    assert np.concatenate([part[1] for part in parts]).tolist() == members.tolist()
    last = data.draw(st.integers(stream, streams - 1))
    together = order.locate_runs(range(stream, last + 1), start, 40)
    for row, each in enumerate(range(stream, last + 1)):
        alone = order.locate_run(each, start, 40)
        assert [part[row].tolist() for part in together] == [part.tolist() for part in alone]


@few
@given(counts_and_streams, seeds, windows, epochs)
def test_a_sample_is_read_within_a_window_of_where_it_lies(shape, seed, window, epoch):
    counts, streams = shape
    total = int(sum(counts))
    # Windows of one image shuffle nothing: what remains is the shards laid end to end.
    laid_order = Order(counts, 1, seed, 1)
    laid = zip(*laid_order.locate_run(0, epoch * total, total), strict=True)
    place = {(int(shard), int(member)): index for index, (shard, member) in enumerate(laid)}
    order = Order(counts, streams, seed, window)
    each = total // streams
    for stream in range(streams):
        first = stream * total // streams
        for offset in range(each):
            location = place[order.locate(stream, epoch * each + offset)]
            assert location // window == (first + offset) // window


def test_shards_lie_whole_and_in_another_sequence_each_epoch():
    counts = np.array([5, 3, 7, 2, 6])
    order = Order(counts, 1, seed=3, window=1)
    sequences = set()
    for epoch in range(6):
        shards, members = order.locate_run(0, epoch * 23, 23)
        changes = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist()]
        sequence = [int(shards[change]) for change in changes]
        assert sorted(sequence) == [0, 1, 2, 3, 4]
        assert members.tolist() == [member for shard in sequence for member in range(counts[shard])]
        sequences.add(tuple(sequence))
    assert len(sequences) > 1


def test_other_samples_sit_out_other_epochs_and_seeds_differ():
    counts = np.array([8, 9, 6])
    everything = {(shard, member) for shard, count in enumerate(counts) for member in range(count)}

    def sitting_out(order: Order, epoch: int) -> frozenset:
        each = order.samples_per_epoch_per_stream
        runs = [order.locate_run(stream, epoch * each, each) for stream in range(4)]
        return frozenset(everything - {pair for run in runs for pair in zip(*run, strict=True)})

    order = Order(counts, 4, seed=1, window=6)
    left = [sitting_out(order, epoch) for epoch in range(40)]
    assert {len(samples) for samples in left} == {23 % 4}
    assert len(set(left)) > 20
    # Nobody is left out for good, nor always.
    assert max(sum(sample in samples for samples in left) for sample in everything) < 40 / 2
    other = Order(counts, 4, seed=2, window=6)
    assert order.locate_run(0, 0, 5)[1].tolist() != other.locate_run(0, 0, 5)[1].tolist()


def test_epochs_follow_without_a_gap():
    order = Order(np.array([4, 3]), 2, seed=0, window=3)
    assert [order.epoch(position) for position in range(7)] == [0, 0, 0, 1, 1, 1, 2]
    crossing = order.locate_run(1, 2, 2)
    assert (int(crossing[0][0]), int(crossing[1][0])) == order.locate(1, 2)
    assert (int(crossing[0][1]), int(crossing[1][1])) == order.locate(1, 3)


def test_the_order_of_a_run_does_not_change_between_versions():
    # Written down when the order was defined: a run that resumes under a later version must find it again.
    order = Order(np.array([4, 3, 5]), 2, seed=7, window=4)
    shards, members = order.locate_run(1, 0, 12)
    assert list(zip(shards.tolist(), members.tolist(), strict=True)) == PINNED


PINNED = [(0, 1), (2, 0), (2, 2), (2, 1), (2, 4), (2, 3), (0, 1), (0, 0), (1, 2), (1, 0), (0, 3), (1, 1)]


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ((np.array([2, 1]), 4, 0, 8), "distributed.streams=4"),
        ((np.array([2, 1]), 0, 0, 8), "distributed.streams=0"),
        ((np.array([2, 1]), 1, 0, 0), "data.shuffle_window_images=0"),
        ((np.array([2, 1]), 1, -1, 8), "run.seed=-1"),
        ((np.array([2, 1]), 1, 2**64, 8), "run.seed="),
    ],
)
def test_what_cannot_work_is_refused_by_key(arguments, key):
    with pytest.raises(UserError, match=key) as refused:
        Order(*arguments)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_ten_million_samples_are_located_without_holding_them():
    counts = np.full(1000, 10_000)
    tracemalloc.start()
    try:
        order = Order(counts, 8, seed=5, window=4096)
        began = time.perf_counter()
        for step in range(0, 40_000, 400):
            for stream in range(8):
                order.locate_run(stream, step * 32, 32)
        seconds = time.perf_counter() - began
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # One byte a sample would be 10 MB; 18 windows of 4,096 int64 are 0.6 MB.
    assert peak_bytes < 3e6
    # 800 runs, each in a window of its own, even on a busy machine.
    assert seconds < 10
