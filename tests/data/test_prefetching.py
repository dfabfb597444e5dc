"""Reading ahead of remotes: the loader gives what it gives of local files, a shard comes once a node, in time."""

import sys
import time
from pathlib import Path

import pytest
import torch
from cache_files import cached_sizes
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_images import SHAPE
from web_server import serving

from latentscale.data.loader import Loader
from latentscale.data.memory_cache import MemoryCachedReader
from latentscale.data.order import Order
from latentscale.data.prefetching import PrefetchingReader
from latentscale.data.step_reader import StepReader
from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage.dataset_files import StorageOptions
from launching import ROOT, Processes

STREAMS, BATCH, WINDOW, SEED = 4, 3, 16, 11
COUNT, PER_SHARD = 200, 8


def step_reader(dataset: ShardedDataset, kind: type[StepReader] = StepReader, streams: range = range(STREAMS)):
    order = Order(dataset.shard_counts, STREAMS, SEED, WINDOW)
    reader = kind(dataset, order, streams, BATCH, SHAPE)
    return PrefetchingReader(reader, dataset, order, streams, BATCH, WINDOW) if dataset.folder.remote else reader


def options(tmp_path: Path, shards: int = 1000, retry_seconds: float = 20.0) -> StorageOptions:
    return StorageOptions(tmp_path / "cache", shards * 16384 + 100_000, retry_seconds, stall_seconds=5.0)


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(1, 20),
    st.integers(0, 60),
    st.integers(1, 30),
)
def test_the_shards_ahead_are_those_that_will_be_read(counts, streams, window, position, images):
    if sum(counts) < streams:
        return
    order = Order(torch.tensor(counts).numpy(), streams, SEED, window)
    for stream in range(streams):
        ahead = order.shards_ahead(stream, position, images)
        assert len(set(ahead)) == len(ahead)
        assert set(order.locate_run(stream, position, images)[0].tolist()) <= set(ahead)
        # and no others than windows of these positions can hold
        first, last = (order.windows(range(stream, stream + 1), at) for at in (position, position + images - 1))
        if first == last:
            places = min(window, sum(counts) - first[1][0] * window)
            assert sum(sorted(counts[shard] for shard in ahead)[: max(0, len(ahead) - 2)]) <= places


@pytest.mark.parametrize("kind", [StepReader, MemoryCachedReader])
@pytest.mark.parametrize(
    ("workers", "shards", "block"),
    [
        (0, 1000, 1),
        (0, 16, 4),
        pytest.param(0, 3, 1, marks=pytest.mark.slow),
        pytest.param(2, 1000, 1, marks=pytest.mark.slow),
        pytest.param(2, 16, 1, marks=pytest.mark.slow),
    ],
)
def test_the_loaders_output_is_that_of_local_files(numbered, tmp_path, workers, shards, block, kind):
    local = numbered(COUNT, PER_SHARD)
    with serving(local.path) as web:
        remote = ShardedDataset.open(web.url, options(tmp_path, shards))
        for start in (0, 31):
            loaders = [
                Loader(
                    step_reader(dataset, kind),
                    workers=workers,
                    prefetch_steps=2,
                    start_step=start,
                    stop_step=start + 25,
                    finish=lambda steps, images, labels: list(zip(steps, images.clone(), labels.clone(), strict=True)),
                    block_steps=block,
                )
                for dataset in (local, remote)
            ]
            with loaders[0], loaders[1]:
                for expected, found in zip(*loaders, strict=True):
                    assert found[0] == expected[0]
                    assert torch.equal(found[1], expected[1])
                    assert torch.equal(found[2], expected[2])
        if shards == 1000:
            assert set(web.tars().values()) == {1}
        sizes = cached_sizes(tmp_path / "cache")
        assert sum(sizes) <= options(tmp_path, shards).cache_bytes


PROCESS = """
import sys, time
from pathlib import Path
sys.path[:0] = {paths!r}
from test_prefetching import STREAMS, options, step_reader
from latentscale.shards.sharded_dataset import ShardedDataset

rank, url, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
reader = step_reader(ShardedDataset.open(url, options(folder)), streams=range(rank, rank + 1))
for step in range(40):
    reader(step)
# a process that ends leaves what it is just fetching ahead to the others, who fetch it again: all end together
(folder / f"done-{{rank}}").touch()
while len(list(folder.glob("done-*"))) < STREAMS:
    time.sleep(0.01)
"""


def test_four_processes_of_a_node_fetch_each_shard_once(numbered, tmp_path, processes: Processes):
    script = tmp_path / "process.py"
    script.write_text(PROCESS.format(paths=[str(ROOT / "tests" / room) for room in ("", "data", "shards", "storage")]))
    with serving(numbered(COUNT, PER_SHARD).path) as web:
        web.delay_seconds = 0.02
        command = [sys.executable, str(script)]
        started = [processes.start([*command, str(rank), web.url, str(tmp_path)]) for rank in range(STREAMS)]
        ended = [process.communicate(timeout=100) for process in started]
        assert [process.returncode for process in started] == [0] * STREAMS, ended
        # two epochs of every stream: all shards
        assert web.tars() == {f"shard-{shard:06d}.tar": 1 for shard in range(COUNT // PER_SHARD)}
        assert set(web.gets.values()) == {1, STREAMS}
        assert web.gets["dataset.json"] == STREAMS


@pytest.mark.slow
def test_shards_are_there_before_they_are_read(numbered, tmp_path):
    with serving(numbered(COUNT, PER_SHARD).path) as web:
        dataset = ShardedDataset.open(web.url, options(tmp_path))
        reader = step_reader(dataset)
        reader(0)
        web.delay_seconds = 0.3
        waited = []
        for step in range(1, 20):
            time.sleep(0.35)
            began = time.monotonic()
            reader(step)
            waited.append(time.monotonic() - began)
        # each shard that is not there takes 0.3 s; one or two may be late where the machine is busy
        assert len(web.tars()) > 15
        assert sum(waited) < 0.2 * 0.3 * len(web.tars())


@pytest.mark.slow
def test_what_is_not_needed_any_more_makes_room(numbered, tmp_path):
    with serving(numbered(COUNT, PER_SHARD).path) as web:
        dataset = ShardedDataset.open(web.url, options(tmp_path))
        reader = step_reader(dataset)
        for step in range(30):
            reader(step)
            now, near, later = reader.wanted(range(step, step + 1))
            assert set(now) <= dataset.held.keys() <= {*near, *later}
            assert set(now) <= set(near)


@pytest.mark.slow
def test_a_remote_that_dies_between_ends_the_loader_in_one_line_after_what_is_good(numbered, tmp_path):
    local = numbered(COUNT, PER_SHARD)
    with serving(local.path) as web:
        dataset = ShardedDataset.open(web.url, options(tmp_path, shards=16, retry_seconds=1.0))
        loader = Loader(
            step_reader(dataset),
            workers=0,
            prefetch_steps=2,
            start_step=0,
            stop_step=10_000,
            finish=lambda steps, images, labels: list(images),
            block_steps=4,
        )
        with loader:
            for step in range(8):
                assert torch.equal(next(loader), step_reader(local)(step)[0])
            web.close()
            died = time.monotonic()

            def go_on() -> None:
                for step in range(8, 10_000):
                    assert torch.equal(next(loader), step_reader(local)(step)[0])

            with pytest.raises(UserError, match=r"shard-\d+\.\S+ cannot be fetched for data\.retry_seconds=1") as ended:
                go_on()
            assert time.monotonic() - died < 10
            assert "\n" not in str(ended.value)


def test_a_cache_that_holds_less_than_is_read_at_once_is_told(numbered, tmp_path, caplog):
    with serving(numbered(COUNT, PER_SHARD).path) as web:
        small, large = options(tmp_path, shards=2), options(tmp_path, shards=100)
        reader = step_reader(ShardedDataset.open(web.url, small))
        reader.warn_if_cache_is_small(0, large)
        assert not caplog.records
        reader.warn_if_cache_is_small(0, small)
        assert f"data.cache_bytes={small.cache_bytes} is less than" in caplog.text
