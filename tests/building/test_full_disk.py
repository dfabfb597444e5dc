"""A disk that is full for real: a build stops in one line, and goes on to the same bytes when there is room."""

import hashlib
import json
import sys
import time
from pathlib import Path

import pytest
from layouts import contents
from small_disk import SmallDisk
from web_server import serving

from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage import node_cache
from latentscale.storage.dataset_files import StorageOptions, StoredFile
from latentscale.storage.node_cache import NodeCache
from latentscale.storage.prefetch import ShardPrefetcher
from launching import Finished, Processes

COMMAND = str(Path(sys.executable).with_name("latentscale"))
OPTIONS = ("--count", "300", "--test-count", "60", "--shard-size", "0.05", "--workers", "0")


def shards(processes: Processes, *arguments: str) -> Finished:
    return processes.run([COMMAND, "shards", *arguments])


@pytest.mark.parametrize("size_bytes", [100_000, 370_000, 890_000])
def test_a_build_stops_in_one_line_and_goes_on_when_there_is_room(
    small_disk: SmallDisk, processes: Processes, tmp_path: Path, size_bytes: int
) -> None:
    """Early, within the first split and within the second."""
    out = small_disk.path / "out"
    small_disk.resize(size_bytes)
    stopped = shards(processes, "build", "clusters", "--out", str(out), *OPTIONS)
    assert (stopped.code, stopped.out) == (2, "")
    assert stopped.err == (
        f"error: {out} cannot be written (No space left on device): make room in {small_disk.path}, and run the same"
        " command again: it continues after the last finished shard\n"
    )
    assert not out.exists()
    data = small_disk.path / ".out.partial/data"
    log = (small_disk.path / ".out.partial/progress.jsonl").read_bytes()
    lines = [json.loads(line) for line in log[: log.rfind(b"\n") + 1].splitlines()[1:]]
    finished = [(line["split"], line["entry"]) for line in lines if line["entry"]]
    assert len(finished) == size_bytes // (25 * 2048 + 14_000)  # 25 points a shard, and its index
    assert ("test" in dict(finished)) == (size_bytes == 890_000)
    for split, entry in finished:
        assert (data / split / entry["file"]).stat().st_size == entry["bytes"]
    again = shards(processes, "build", "clusters", "--out", str(out), *OPTIONS)
    assert again.code == 2, "nothing has changed"
    small_disk.resize(8 * 2**20)
    done = shards(processes, "build", "clusters", "--out", str(out), *OPTIONS)
    assert done.code == 0, done.err
    assert f"({sum(entry['count'] for _, entry in finished)} of them by an earlier run)" in done.out
    elsewhere = shards(processes, "build", "clusters", "--out", str(tmp_path / "elsewhere"), *OPTIONS)
    assert elsewhere.code == 0, elsewhere.err
    assert contents(out) == contents(tmp_path / "elsewhere")
    assert not data.exists()


def test_a_split_on_a_full_disk_leaves_nothing(small_disk: SmallDisk, processes: Processes, tmp_path: Path) -> None:
    built = shards(processes, "build", "clusters", "--out", str(tmp_path / "whole"), *OPTIONS)
    assert built.code == 0, built.err
    small_disk.resize(200_000)
    out = small_disk.path / "out"
    stopped = shards(processes, "split", str(tmp_path / "whole"), "--out", str(out), "--test", "20")
    assert stopped.code == 2
    assert stopped.err == (
        f"error: {out} cannot be written (No space left on device): make room in {small_disk.path}, and run the same"
        " command again\n"
    )
    assert list(small_disk.path.iterdir()) == []


def test_the_nodes_cache_makes_room_on_a_full_disk_for_what_is_needed_and_spares_what_is_held(
    small_disk: SmallDisk,
) -> None:
    small_disk.resize(2**20)
    cache = NodeCache(small_disk.path / "cache", 2**30)
    contents_of = [bytes([number]) * 300_000 for number in range(6)]
    files = [StoredFile(f"{n}.tar", hashlib.sha256(c).hexdigest(), len(c), len(c)) for n, c in enumerate(contents_of)]
    fetched: list[int] = []

    def open_file(number: int, needed: bool = True, hold: bool = False):
        def fetch(to: Path) -> None:
            fetched.append(number)
            to.write_bytes(contents_of[number])

        return cache.open(files[number], f"{number}.tar", fetch, needed, hold)

    held = open_file(0, hold=True)
    for number in (1, 2):
        open_file(number)
    with pytest.raises(OSError, match="No space left"):
        open_file(3, needed=False)
    assert open_file(3).read_all() == contents_of[3]
    # the first was used longest ago, but it is held
    assert [cache.find(file) is not None for file in files[:3]] == [True, False, True]
    everything = [open_file(number, hold=True) for number in (0, 3)]
    assert fetched[-1] == 3
    small_disk.fill(leave_bytes=0)
    with pytest.raises(OSError, match="No space left"):
        [everything.append(open_file(number, hold=True)) for number in (4, 5)]
    assert [file.read_all() for file in (held, everything[1])] == [contents_of[0], contents_of[3]]
    assert not list((small_disk.path / "cache/arriving").glob("*.data"))


def test_on_a_full_disk_shards_held_for_later_make_room_for_those_that_are_needed(
    small_disk: SmallDisk, numbered, monkeypatch
):
    """They are held again when they are needed themselves."""
    local = numbered(200, 8)
    size = int(local.shard_sizes_bytes.max())
    small_disk.resize(10 * size)
    options = StorageOptions(small_disk.path / "cache", 2**30, 5.0, 5.0)
    with serving(local.path) as web:
        dataset = ShardedDataset.open(web.url, options)
        fetcher = ShardPrefetcher(dataset)
        fetcher.start()
        try:
            later = list(range(1, 15))
            fetcher.want([0], later)
            deadline = time.monotonic() + 10
            while len(dataset.held) < 5 and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.3)  # as many as the disk takes
            assert 5 <= len(dataset.held) < 10
            for needed in ([20, 21, 22], [0, 1, 2, 3], [23, 24]):
                fetcher.want(needed, [shard for shard in (*later, 20) if shard not in needed])
                assert fetcher.holds(needed)
                assert all(dataset.read(shard, 3) == local.read(shard, 3) for shard in needed)
            assert fetcher.released >= 1
            # what is needed at once must fit
            monkeypatch.setattr(node_cache, "_FULL_DISK_SECONDS", 0.3)
            with pytest.raises(
                UserError, match=r"data\.cache_folder=.* cannot be written \(No space left.*\)"
            ) as refused:
                fetcher.want(list(range(14)), [])
            assert "make room there, or use a folder with more space" in str(refused.value)
            assert "cache_bytes" not in str(refused.value)
        finally:
            fetcher.close()
