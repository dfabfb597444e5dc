"""Reading ahead: the same batches from threads and processes, and an end in good order whatever happens."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_images import LABELS, SHAPE, numbered_samples, numbers

from latentscale.data.loader import Loader
from latentscale.data.order import Order
from latentscale.data.step_reader import StepReader
from latentscale.errors import UserError
from latentscale.shards.dataset_writer import write_shards
from latentscale.shards.sample import Sample
from latentscale.shards.sharded_dataset import ShardedDataset

STREAMS = 4


def step_reader(dataset, owned=range(STREAMS), batch=3, window=7, shape=SHAPE, streams=STREAMS) -> StepReader:
    order = Order(dataset.shard_counts, streams, seed=11, window=window)
    return StepReader(dataset, order, owned, batch, shape)


def batch_numbers(step, images, labels) -> tuple[int, list[int], list[int]]:
    return step, numbers(images), labels.tolist()


def loader(reader, workers=0, start=0, stop=12, finish=batch_numbers, prefetch=2, block=1) -> Loader:
    def finish_each(steps, images, labels):
        return [finish(step, *batch) for step, *batch in zip(steps, images, labels, strict=True)]

    return Loader(
        reader,
        workers=workers,
        prefetch_steps=prefetch,
        start_step=start,
        stop_step=stop,
        finish=finish_each,
        block_steps=block,
    )


def children() -> list[multiprocessing.process.BaseProcess]:
    return multiprocessing.active_children()


def test_a_step_holds_each_streams_next_positions(numbered):
    dataset = numbered(30, 7)
    order = Order(dataset.shard_counts, STREAMS, seed=11, window=7)
    images, labels = step_reader(dataset)(5)
    located = [order.locate(stream, 5 * 3 + i) for stream in range(STREAMS) for i in range(3)]
    assert numbers(images) == [shard * 7 + member for shard, member in located]
    assert labels.tolist() == [number % 3 for number in numbers(images)]
    assert (images.dtype, images.shape) == (torch.uint8, (12, 1, 4, 4))
    assert labels.dtype == torch.int64


@settings(max_examples=40)
@given(
    st.sampled_from([(30, 7), (31, 31), (40, 1)]),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 9),
    st.integers(1, 20),
    st.integers(0, 50),
    st.data(),
)
def test_processes_together_read_what_one_process_reads(numbered, sizes, streams, batch, window, step, data):
    dataset = numbered(*sizes)
    whole = step_reader(dataset, range(streams), batch, window, streams=streams)(step)
    processes = data.draw(st.sampled_from([p for p in (1, 2, 4, 8) if streams % p == 0]))
    owned = streams // processes
    parts = [
        step_reader(dataset, range(rank * owned, (rank + 1) * owned), batch, window, streams=streams)(step)
        for rank in range(processes)
    ]
    assert torch.equal(torch.cat([images for images, _ in parts]), whole[0])
    assert torch.equal(torch.cat([labels for _, labels in parts]), whole[1])


@pytest.mark.parametrize("prefetch", [1, 5])
@pytest.mark.parametrize(
    ("workers", "block"),
    [(0, 1), (0, 5), (0, 20), pytest.param(1, 1, marks=pytest.mark.slow), pytest.param(2, 5, marks=pytest.mark.slow)],
)
def test_neither_workers_nor_blocks_change_anything_and_a_resumed_loader_continues(numbered, workers, block, prefetch):
    reader = step_reader(numbered(30, 7))
    expected = [batch_numbers(step, *reader(step)) for step in range(12)]
    with loader(reader, workers, block=block, prefetch=prefetch) as whole:
        assert list(whole) == expected
    with loader(reader, workers, start=5, block=block, prefetch=prefetch) as resumed:
        assert list(resumed) == expected[5:]
    assert children() == []


def test_grey_shards_serve_colour_networks_and_other_sizes_are_refused(numbered):
    reader = pickle.loads(pickle.dumps(step_reader(numbered(30, 7), shape=(3, 4, 4))))
    images, _ = reader(0)
    assert torch.equal(images, step_reader(numbered(30, 7))(0)[0].expand(-1, 3, -1, -1))
    with pytest.raises(UserError, match="holds images of 4x4 pixels, not 8x8"):
        step_reader(numbered(30, 7), shape=(1, 8, 8))


@pytest.mark.parametrize(("workers", "block"), [(0, 1), (0, 2), (0, 5), pytest.param(2, 1, marks=pytest.mark.slow)])
def test_steps_are_made_ahead_but_no_further_than_asked(numbered, workers, block):
    made: list[int] = []
    thread: list[str] = []

    def finish(step, images, labels):
        made.append(step)
        thread.append(threading.current_thread().name)
        return step

    with loader(step_reader(numbered(30, 7)), workers, stop=1000, finish=finish, prefetch=3, block=block) as steps:
        for taken in range(1, 6):
            waited = steps.waited_seconds
            assert next(steps) == taken - 1
            assert taken == 1 or steps.waited_seconds - waited < 0.1
            # blocks that are taken, that wait in the queue, and one more that waits to be put
            ahead = [step for step in range(1000) if step // block < -(-taken // block) + -(-3 // block) + 1]
            deadline = time.monotonic() + 20
            while len(made) < len(ahead) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.1)
            assert made == ahead
    assert set(thread) == {"data loader"}


@pytest.mark.slow
def test_the_random_state_is_left_alone(numbered):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with loader(step_reader(numbered(30, 7)), workers=1, stop=2) as steps:
        list(steps)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("workers", "block"), [(0, 1), (0, 3), (0, 4), pytest.param(2, 1, marks=pytest.mark.slow)])
def test_an_error_arrives_as_itself_after_the_batches_before_it(tmp_path, workers, block):
    samples = list(numbered_samples(12))
    samples[7] = Sample(b"no image", "png", 0)
    write_shards(samples, tmp_path / "data", "broken", SHAPE, LABELS, "CC0")
    dataset = ShardedDataset.open(tmp_path / "data")
    order = Order(dataset.shard_counts, 1, seed=0, window=1)
    reader = StepReader(dataset, order, range(1), 2, SHAPE)
    with loader(reader, workers, block=block) as steps:
        assert [next(steps)[1] for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]
        for _ in range(2):
            with pytest.raises(UserError, match=r"shard-000000\.tar member 7 is not a readable") as raised:
                next(steps)
            assert type(raised.value) is UserError
            assert "\n" not in str(raised.value)
    assert children() == []


def test_an_error_of_finish_arrives_and_a_closed_loader_refuses(numbered):
    class Unusual(Exception):
        pass

    def finish(step, images, labels):
        if step == 2:
            raise Unusual("here")
        return step

    with loader(step_reader(numbered(30, 7)), finish=finish) as steps:
        assert [next(steps), next(steps)] == [0, 1]
        with pytest.raises(Unusual, match="here"):
            next(steps)
    steps.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(steps)
    assert not any(thread.name == "data loader" for thread in threading.enumerate())


def test_a_loader_that_is_dropped_ends_its_thread(numbered):
    steps = loader(step_reader(numbered(30, 7)), stop=1000)
    next(steps)
    del steps
    assert not any(thread.name == "data loader" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("arguments", "key"), [({"workers": -1}, "data.workers=-1"), ({"prefetch": 0}, "data.prefetch_steps=0")]
)
def test_counts_that_cannot_be_are_refused_by_key(numbered, arguments, key):
    with pytest.raises(UserError, match=key):
        loader(step_reader(numbered(30, 7)), **arguments)


@pytest.mark.slow
def test_signals_to_the_group_leave_workers_reading(numbered):
    expected = [batch_numbers(step, *step_reader(numbered(30, 7))(step)) for step in range(60)]
    with loader(step_reader(numbered(30, 7)), workers=2, stop=60) as steps:
        got = [next(steps)]
        workers = [psutil.Process(child.pid) for child in children()]
        server = workers[0].parent()
        assert server.pid != os.getpid()
        for process in [*workers, server]:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
        got += list(steps)
        assert got == expected
        assert server.is_running()
        assert server.status() != psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_a_killed_worker_is_reported_in_one_line(numbered):
    with loader(step_reader(numbered(30, 7)), workers=2, stop=1_000_000) as steps:
        next(steps)
        victim = children()[0].pid
        os.kill(victim, signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(UserError, match=rf"data worker process {victim} .*SIGKILL.*data\.workers") as raised:
            for _ in steps:
                pass
        assert time.monotonic() - began < 20
        assert "\n" not in str(raised.value)
    assert children() == []


SCRIPT = """
import multiprocessing, os, signal, sys, time
import numpy as np
from latentscale.data.loader import Loader
from latentscale.data.step_reader import StepReader
from latentscale.data.order import Order
from latentscale.shards.sharded_dataset import ShardedDataset

def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    dataset = ShardedDataset.open({path!r})
    reader = StepReader(dataset, Order(dataset.shard_counts, 4, 0, 7), range(4), 3, (1, 4, 4))
    steps = Loader(reader, workers=2, prefetch_steps=2, start_step=0, stop_step=10**6, finish=lambda steps, *_: steps)
    next(steps)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    {ending}

if __name__ == "__main__":
    main()
"""

ENDINGS = {
    "falls off the end": ("pass", None, 0),
    "interrupted": ("[None for _ in steps]", signal.SIGINT, -signal.SIGINT),
    "killed": ("time.sleep(600)", signal.SIGKILL, -signal.SIGKILL),
}


@pytest.mark.slow
def test_no_process_outlives_its_program_however_it_ends(numbered, tmp_path):
    programs = {}
    for number, (name, (ending, _, _)) in enumerate(ENDINGS.items()):
        script: Path = tmp_path / f"program_{number}.py"
        script.write_text(textwrap.dedent(SCRIPT).format(path=str(numbered(30, 7).path), ending=ending))
        programs[name] = subprocess.Popen(
            [sys.executable, script],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
    try:
        for name, program in programs.items():
            assert len(program.stdout.readline().split()) == 2
            if (sent := ENDINGS[name][1]) == signal.SIGKILL:
                program.send_signal(sent)
            elif sent is not None:
                os.killpg(program.pid, sent)
        for name, program in programs.items():
            if ENDINGS[name][1] == signal.SIGINT:
                # Python drops a KeyboardInterrupt that falls into a finaliser: a person would press again
                with contextlib.suppress(subprocess.TimeoutExpired):
                    program.wait(timeout=10)
                if program.poll() is None:
                    os.killpg(program.pid, signal.SIGINT)
            assert program.wait(timeout=30) == ENDINGS[name][2], name
            deadline = time.monotonic() + 10
            while (left := session_of(program.pid)) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert left == [], name
    finally:
        for program in programs.values():
            for pid in session_of(program.pid):
                os.kill(pid, signal.SIGKILL)


def session_of(leader: int) -> list[int]:
    """The processes of a session that still run."""
    running = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                running.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return running


def test_reading_is_fast_enough_for_small_images(numbered):
    reader = step_reader(numbered(300, 100), batch=64, window=64)
    reader(0)
    rounds = []
    for first in (1, 5, 9):
        began = time.perf_counter()
        for step in range(first, first + 4):
            reader(step)
        rounds.append((time.perf_counter() - began) / (4 * 4 * 64))
    # About 30 µs on an idle core; a search of the whole index or an open per image would take milliseconds.
    assert min(rounds) < 1e-3


@pytest.mark.slow
def test_a_worker_that_cannot_start_is_reported(numbered, tmp_path):
    # Without the guard of __main__, a worker that imports the program starts it again.
    script = tmp_path / "unguarded.py"
    text = SCRIPT.format(path=str(numbered(30, 7).path), ending="pass")
    script.write_text(text.replace('if __name__ == "__main__":', "if True:"))
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "UserError: data worker process" in ended.stderr.splitlines()[-1]
