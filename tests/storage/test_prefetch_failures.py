"""What cannot be fetched ahead is asked for rarely, what is held is counted, and a lack of descriptors is named."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from numbered_images import LABELS, SHAPE, numbered_samples
from web_server import WebServer, serving

from latentscale.errors import UserError
from latentscale.shards.dataset_writer import write_shards
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage.dataset_files import OpenFile, StorageOptions
from latentscale.storage.node_cache import NodeCache
from latentscale.storage.prefetch import ShardPrefetcher
from latentscale.storage.remote import Remote

COUNT, PER_SHARD = 200, 8
MISSING = "shard-000001.tar"


@pytest.fixture
def web(numbered, tmp_path) -> Iterator[WebServer]:
    """Shards that may be damaged or removed."""
    with serving(Path(shutil.copytree(numbered(COUNT, PER_SHARD).path, tmp_path / "served"))) as server:
        yield server


@contextmanager
def fetching(dataset: ShardedDataset) -> Iterator[ShardPrefetcher]:
    fetcher = ShardPrefetcher(dataset)
    fetcher.start()
    try:
        yield fetcher
    finally:
        fetcher.close()


def opened(web: WebServer, tmp_path: Path, cache_bytes: int = 2**24) -> ShardedDataset:
    return ShardedDataset.open(web.url, StorageOptions(tmp_path / "cache", cache_bytes, 5.0, 5.0))


def wait_for(fetcher: ShardPrefetcher, shards: set[int]) -> None:
    deadline = time.monotonic() + 10
    while not fetcher.holds(shards) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert fetcher.holds(shards)


@pytest.mark.slow
def test_a_missing_shard_is_asked_for_once_ahead_and_once_when_it_is_needed(web, tmp_path):
    (web.folder / MISSING).unlink()
    with fetching(opened(web, tmp_path)) as fetcher:
        fetcher.want([0], [1, 2, 3])
        wait_for(fetcher, {0, 2, 3})
        time.sleep(1.2)
        assert web.gets[MISSING] == 1
        # other needs, and other windows, do not change that
        fetcher.want([2], [1, 3, 4])
        wait_for(fetcher, {2, 3, 4})
        assert web.gets[MISSING] == 1
        for _ in range(5):
            with pytest.raises(UserError, match=f"{MISSING} cannot be fetched"):
                fetcher.want([1], [2, 3, 4])
        time.sleep(0.7)
        assert web.gets[MISSING] == 2


def test_a_failure_that_stops_to_count_while_a_shard_is_asked_for_again_is_not_waited_for(web, tmp_path, monkeypatch):
    (web.folder / MISSING).unlink()
    with fetching(opened(web, tmp_path)) as fetcher:
        with pytest.raises(UserError, match=f"{MISSING} cannot be fetched"):
            fetcher.want([1], [])
        failed_at = fetcher._failed[1][1]
        looks = iter([failed_at + 9.9])  # who asks looks for the first time just before it stops to count

        def monotonic() -> float:
            late = failed_at + 10.1
            return next(looks, late) if threading.current_thread() is asking else late

        raised: list[BaseException] = []

        def ask() -> None:
            with pytest.raises(UserError, match=f"{MISSING} cannot be fetched") as caught:
                fetcher.want([1], [])
            raised.append(caught.value)

        asking = threading.Thread(target=ask, daemon=True)
        monkeypatch.setattr("latentscale.storage.prefetch.time", SimpleNamespace(monotonic=monotonic))
        asking.start()
        asking.join(timeout=10)
        assert raised


@pytest.mark.slow
def test_a_damaged_shard_is_fetched_twice_ahead_and_not_for_ever(web, tmp_path):
    content = bytearray((web.folder / MISSING).read_bytes())
    content[2000] ^= 1
    (web.folder / MISSING).write_bytes(content)
    with fetching(opened(web, tmp_path)) as fetcher:
        fetcher.want([0], [1, 2])
        wait_for(fetcher, {0, 2})
        time.sleep(1.2)
        assert web.gets[MISSING] == 2
        with pytest.raises(UserError, match=rf"{MISSING} is damaged \(fetched twice"):
            fetcher.want([1], [2])
        assert web.gets[MISSING] == 4


@pytest.mark.slow
def test_a_failing_remote_is_asked_less_and_less_often_until_it_answers(web, tmp_path):
    web.faults = {MISSING: ["refuse"] * 3}
    with fetching(opened(web, tmp_path)) as fetcher:
        began = time.monotonic()
        fetcher.want([0], [1, 2])
        time.sleep(1.2)
        waited = time.monotonic() - began
        assert 1 <= web.gets[MISSING] <= 1 + sum(waited >= at_seconds for at_seconds in (0.5, 1.5, 3.5))
        fetcher.want([1], [2])
        assert fetcher.holds([1])
        assert web.gets[MISSING] == 4


def counted_downloads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Of every file, however it is fetched."""
    counts: Counter[str] = Counter()
    download, lock = Remote.download, threading.Lock()

    def counting(remote: Remote, name: str, to: Path, insist: bool = True) -> None:
        with lock:
            counts[name] += 1
        download(remote, name, to, insist)

    monkeypatch.setattr(Remote, "download", counting)
    return counts


def unlinked_bytes(folder: Path) -> int:
    """Of the files that this process has open under no name, within a folder."""
    total = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            if str(folder) in str(link.readlink()) and (status := link.stat()).st_nlink == 0:
                total += status.st_size
        except OSError:
            continue
    return total


@pytest.mark.slow
def test_where_the_cache_is_full_nothing_is_fetched_for_nothing_or_held_uncounted(web, tmp_path, monkeypatch):
    downloads = counted_downloads(monkeypatch)
    makes_room: Counter[bool] = Counter()
    make_room = NodeCache._make_room

    def counting(cache: object, size: int, kept_room: Path, needed: bool) -> bool:
        makes_room[needed] += 1
        return make_room(cache, size, kept_room, needed)

    monkeypatch.setattr(NodeCache, "_make_room", counting)
    size = int(ShardedDataset.open(web.folder).shard_sizes_bytes.max())
    with fetching(opened(web, tmp_path, cache_bytes=5 * size)) as fetcher:
        fetcher.want([0], [])
        fetcher.want([0], list(range(1, COUNT // PER_SHARD)))
        time.sleep(2.2)
        tried = sum(makes_room.values())
        # an index stays in memory and is fetched once; of tars five fit, and of the others hardly one is fetched
        tars = Counter({name: times for name, times in downloads.items() if name.endswith(".tar")})
        assert max((downloads - tars).values()) == 1
        assert max(tars.values()) <= 2
        assert tars.total() <= 8
        # 24 shards are tried at 0, 0.5 and 1.5 s
        assert tried <= 100
        assert unlinked_bytes(tmp_path) == 0
        # what is released makes room, and is noticed
        held = len(fetcher._dataset.held)
        assert 2 <= held <= 5
        fetcher.want([20], [21, 22])
        wait_for(fetcher, {20, 21, 22})
        assert unlinked_bytes(tmp_path) == 0


@pytest.mark.parametrize("hold", [False, True])
def test_what_is_fetched_ahead_is_held_before_anybody_can_evict_it(web, tmp_path, hold):
    """Another process makes room as soon as the file has its name, before its lock is free."""
    dataset = opened(web, tmp_path)
    file = dataset.tar(0)
    first, second = (NodeCache(tmp_path / "cache", 2 * int(dataset.shard_sizes_bytes[0])) for _ in range(2))
    lock_of = first._lock

    class Crowded(FileLock):
        def release(self, force: bool = False) -> None:
            second._make_room(file.about_bytes + 1, tmp_path / "cache" / "arriving" / f"{'f' * 64}.1", False)
            super().release(force)

    first._lock = lambda sha256: (Crowded if sha256 == file.sha256 else FileLock)(lock_of(sha256).lock_file)
    found = first.open(file, "x", lambda path: path.write_bytes((web.folder / file.name).read_bytes()), False, hold)
    assert found is not None
    assert found.unlinked != hold


def test_a_file_evicted_between_its_opening_and_its_holding_is_not_found(web, tmp_path, monkeypatch):
    dataset = opened(web, tmp_path)
    cache, file = dataset.folder._cache, dataset.tar(0)
    assert dataset.folder.open(file).unlinked is False
    hold = OpenFile.hold

    def too_late(found: OpenFile) -> None:
        (tmp_path / "cache" / "files" / file.sha256).unlink()
        hold(found)

    monkeypatch.setattr(OpenFile, "hold", too_late)
    assert cache.find(file, hold=True) is None


def test_another_users_cached_file_is_read_without_being_marked(web, tmp_path, monkeypatch):
    dataset = opened(web, tmp_path)
    dataset.read(0, 0)

    def refuse(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    assert opened(web, tmp_path).read(0, 0) == dataset.read(0, 0)
    assert web.tars() == {"shard-000000.tar": 1}


MANY = """
import resource, sys, time
from pathlib import Path
soft, hard, url = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
from latentscale.storage.prefetch import ShardPrefetcher
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage.dataset_files import OpenFile, StorageOptions
from latentscale.errors import UserError
dataset = ShardedDataset.open(url, StorageOptions(Path(sys.argv[4]), 2**30, 1.0, 5.0))
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
fetcher = ShardPrefetcher(dataset)
fetcher.start()
everything = list(range(len(dataset.shard_counts)))
try:
    fetcher.want(everything[: int(sys.argv[5])], everything)
    seen = 0
    while seen < (seen := len(dataset.held)) < len(everything):
        time.sleep(0.7)
    print(len(dataset.held))
except UserError as error:
    print(error)
sys.stdout.flush()
"""


def held_with(limits: tuple[int, int], folder: Path, cache: Path, needed: int) -> str:
    arguments = [*map(str, limits), f"file://{folder}", str(cache), str(needed)]
    ended = subprocess.run([sys.executable, "-c", MANY, *arguments], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize(("hard", "needed", "told"), [(1000, 1, "75"), (80, 1, "40"), (80, 75, "too many open files")])
def test_small_shards_are_held_as_far_as_the_hard_limit_goes_and_then_it_is_said(tmp_path, hard, needed, told):
    write_shards(numbered_samples(75), tmp_path / "data", "n", SHAPE, LABELS, "CC0", 2048)
    assert len(ShardedDataset.open(tmp_path / "data").shard_counts) == 75
    found = held_with((60, hard), tmp_path / "data", tmp_path / "cache", needed)
    if told.isdecimal():
        assert found == told
    else:
        assert f"cannot be opened ({told}): raise the limit (ulimit -n)" in found
        assert "data.cache_folder" not in found
        assert "\n" not in found


def test_a_slow_answer_in_memory_is_not_called_a_silent_one(web, tmp_path):
    web.delay_seconds = 1.0
    remote = Remote(web.url, StorageOptions(tmp_path / "cache", 2**20, 0.0, stall_seconds=0.5))
    with pytest.raises(UserError, match=r"no complete response within data\.stall_seconds=0\.5"):
        remote.read("dataset.json")
