"""Streaming by webdataset: samples of the shards, by (seed, stream, first step), whoever reads the stream."""

import json
import shutil
import tarfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from numbered_images import LABELS, SHAPE, numbered_samples, numbers
from web_server import serving

from latentscale.data.order import Order
from latentscale.data.step_reader import Preprocessing
from latentscale.data.streaming import StreamingReader
from latentscale.errors import UserError
from latentscale.shards.dataset_writer import Sample, write_shards
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage.checksums import sha256_of_file
from latentscale.storage.dataset_files import StorageOptions

STREAMS, BATCH = 4, 3


def reader(
    dataset: ShardedDataset,
    streams: range = range(STREAMS),
    seed: int = 5,
    threads: int = 0,
    window: int = 40,
    layout: np.ndarray | None = None,
    **preprocessing: bool,
) -> StreamingReader:
    layout = np.arange(len(streams) * BATCH) if layout is None else layout
    order = Order(dataset.shard_counts, STREAMS, seed, window)
    return StreamingReader(
        dataset,
        order,
        streams,
        BATCH,
        SHAPE,
        layout,
        Preprocessing(seed=seed, **preprocessing),
        seed=seed,
        window_images=window,
        threads=threads,
    )


def read(source: StreamingReader, start: int = 0, stop: int = 30, block: int = 1) -> list[tuple[list[int], list[int]]]:
    found = []
    for first in range(start, stop, block):
        images, labels, _ = source.block(range(first, min(stop, first + block)))
        found += [(numbers(image), label.tolist()) for image, label in zip(images, labels, strict=True)]
    return found


def options(tmp_path: Path, retry_seconds: float = 20.0) -> StorageOptions:
    return StorageOptions(tmp_path / "cache", 2**20, retry_seconds, stall_seconds=1.0)


def test_samples_carry_their_labels_and_all_come_in_time(numbered):
    found = read(reader(numbered(60, 7)), stop=100)
    counts = Counter(number for step, _ in found for number in step)
    assert all(label == [number % 3 for number in step] for step, label in found)
    assert set(counts) == set(range(60))
    # with replacement by shard: 1,200 samples of 60 do not come 20 times each
    assert max(counts.values()) > 20 > min(counts.values())


@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize("threads", [0, 3])
def test_neither_processes_nor_threads_nor_blocks_change_a_stream(numbered, threads, block):
    whole = read(reader(numbered(60, 7)))
    parts = [read(reader(numbered(60, 7), range(k, k + 2), threads=threads), block=block) for k in (0, 2)]
    assert [(a + c, b + d) for (a, b), (c, d) in zip(*parts, strict=True)] == whole
    layout = np.arange(STREAMS * BATCH).reshape(STREAMS, BATCH).T.reshape(-1)
    laid = read(reader(numbered(60, 7), layout=layout))
    assert laid == [(np.take(a, layout).tolist(), np.take(b, layout).tolist()) for a, b in whole]


def test_streams_seeds_and_first_steps_differ_and_a_repeated_start_does_not(numbered):
    dataset = numbered(60, 7)
    first = read(reader(dataset), 10, 20)
    assert read(reader(dataset), 10, 20) == first
    assert read(reader(dataset, seed=6), 10, 20) != first
    assert read(reader(dataset), 0, 20)[10:] != first
    by_stream = [np.array([step for step, _ in first]).reshape(-1, STREAMS, BATCH)[:, k].tolist() for k in range(4)]
    assert all(a != b for i, a in enumerate(by_stream) for b in by_stream[:i])


def test_the_rank_has_no_say(numbered, monkeypatch):
    first = read(reader(numbered(60, 7)), stop=5)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("WORKER", "2")
    assert read(reader(numbered(60, 7)), stop=5) == first


def test_flips_are_those_of_indexed_reading(numbered):
    plain, flipped = (reader(numbered(60, 7), horizontal_flip=flip).block(range(8)) for flip in (False, True))
    mirrored = [
        torch.equal(a, b.flip(-1)) for a, b in zip(plain[0].flatten(0, 1), flipped[0].flatten(0, 1), strict=True)
    ]
    same = [torch.equal(a, b) for a, b in zip(plain[0].flatten(0, 1), flipped[0].flatten(0, 1), strict=True)]
    assert [a or b for a, b in zip(mirrored, same, strict=True)] == [True] * 96
    assert 25 < sum(mirrored) < 71


@pytest.mark.slow
@pytest.mark.parametrize("ranges", [True, False])
def test_a_remote_gives_what_the_local_copy_gives(numbered, tmp_path, ranges):
    local = numbered(60, 7)
    with serving(local.path) as web:
        web.give_ranges = ranges
        remote = ShardedDataset.open(web.url, options(tmp_path))
        assert read(reader(remote)) == read(reader(local))
        # by ranges nothing is kept
        assert (tmp_path / "cache" / "files").exists() != ranges
        assert bool(web.tars()) != ranges


@pytest.mark.slow
def test_large_shards_come_in_several_ranges(tmp_path, monkeypatch):
    samples = [Sample(sample.image + bytes(5000), "png", sample.label) for sample in numbered_samples(60)]
    write_shards(samples, tmp_path / "data", "n", SHAPE, LABELS, "CC0", 16 * 7168)
    local = ShardedDataset.open(tmp_path / "data")
    monkeypatch.setattr("latentscale.storage.range_stream.RANGE_BYTES", 10_000)
    monkeypatch.setattr("latentscale.storage.cached_remote.RANGE_BYTES", 10_000)
    with serving(local.path) as web:
        web.faults = {f"shard-{shard:06d}.tar": ["", "refuse", "hang", "close early"] for shard in range(4)}
        assert read(reader(ShardedDataset.open(web.url, options(tmp_path))), stop=12) == read(reader(local), stop=12)
        assert min(web.ranges[f"shard-{shard:06d}.tar"] for shard in range(4)) > 8
        assert all(len(left) == 0 for left in web.faults.values())


@pytest.fixture
def damaged(tmp_path) -> ShardedDataset:
    """One image of 24 is none."""
    samples = list(numbered_samples(24))
    samples[7] = Sample(b"no image", "png", 0)
    write_shards(samples, tmp_path / "data", "n", SHAPE, LABELS, "CC0", 8 * 2048)
    return ShardedDataset.open(tmp_path / "data")


def test_a_sample_that_cannot_be_decoded_is_named_or_skipped(damaged):
    with pytest.raises(UserError, match=r"shard-000000\.tar member 7 is not a readable"):
        read(reader(damaged))
    skipping = reader(damaged, skip_errors=True)
    _, _, skipped = skipping.block(range(30))
    assert skipped
    assert all((one.shard, one.member) == (0, 7) for step in skipped.values() for one in step)
    assert all(7 not in step for step, _ in read(reader(damaged, skip_errors=True)))


def reads(source: StreamingReader, step: int) -> bool:
    try:
        source.block(range(step, step + 1))
    except UserError:
        return False
    return True


@pytest.mark.parametrize("first", [1, 20])
def test_what_comes_before_a_bad_sample_is_read_again_alone(damaged, first):
    """As the loader does it: a block fails, then its steps are asked for one by one."""
    # at every start samples are drawn anew: one whose first step is good
    start = next(step for step in range(first, first + 20) if reads(reader(damaged), step))
    source, stop = reader(damaged), start + 40
    with pytest.raises(UserError, match="member 7"):
        source.block(range(start, stop))
    good = read(reader(damaged, skip_errors=True), start, stop)
    with nullcontext(reader(damaged)) as alone:
        for step in range(start, stop):
            try:
                expected = read(alone, step, step + 1)
            except UserError:
                break
            assert read(source, step, step + 1) == expected == good[step - start : step - start + 1]
        with pytest.raises(UserError, match="member 7"):
            read(source, step, step + 1)
        assert step > start


def test_a_damaged_shard_is_found_at_its_end(numbered, tmp_path):
    with serving(numbered(60, 7).path) as web:
        web.faults = {"": ["flip"]}
        dataset = ShardedDataset.open(f"file://{numbered(60, 7).path}", options(tmp_path))
        dataset.folder = type(dataset.folder)(web.url, options(tmp_path))
        with pytest.raises(UserError, match=r"shard-\d+\.tar is damaged \(its SHA-256") as refused:
            read(reader(dataset))
        assert "\n" not in str(refused.value)


def test_a_header_that_was_made_to_do_harm_is_named(numbered, tmp_path):
    folder = Path(shutil.copytree(numbered(14, 7).path, tmp_path / "data"))
    info = tarfile.TarInfo("000000099.png")
    info.pax_headers = {"GNU.sparse.map": "a,b"}
    tar = folder / "shard-000001.tar"
    with tarfile.open(tar, "a", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    description = json.loads((folder / "dataset.json").read_text())
    description["shards"][1] |= {"sha256": sha256_of_file(tar), "bytes": tar.stat().st_size}
    (folder / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"shard-000001\.tar cannot be read") as refused:
        read(reader(ShardedDataset.open(folder)))
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_cut_off_shard_and_a_dead_remote_are_named(numbered, tmp_path):
    write_shards(numbered_samples(24), tmp_path / "data", "n", SHAPE, LABELS, "CC0", 8 * 2048)
    dataset = ShardedDataset.open(tmp_path / "data")
    for path in (tmp_path / "data").glob("*.tar"):
        path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(UserError, match=r"shard-\d+\.tar (cannot be read|is cut off)"):
        read(reader(dataset))
    with serving(numbered(60, 7).path) as web:
        remote = ShardedDataset.open(web.url, options(tmp_path, retry_seconds=0.5))
        source = reader(remote)
        read(source, stop=2)
        web.close()
        with pytest.raises(UserError, match=r"shard-\d+\.tar cannot be fetched for data\.retry_seconds=0\.5"):
            read(source, 2, 100)
