"""A node's cache: fetched once, bounded, what is in use stays, and nothing broken is left by whoever is killed."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from latentscale.errors import UserError
from latentscale.storage.dataset_files import OpenFile, StoredFile
from latentscale.storage.node_cache import NodeCache, WrongChecksum

SIZE = 1000


def content(number: int) -> bytes:
    return bytes([number]) * SIZE


def stored(number: int, size: int | None = SIZE) -> StoredFile:
    return StoredFile(f"file-{number}", hashlib.sha256(content(number)).hexdigest(), size, SIZE)


class Source:
    """Counts what is fetched."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.fetched: list[int] = []
        self.seconds = seconds

    def open(self, cache: NodeCache, number: int, needed: bool = True, size: int | None = SIZE) -> OpenFile | None:
        def fetch(path: Path) -> None:
            self.fetched.append(number)
            time.sleep(self.seconds)
            self.before_writing()
            path.write_bytes(content(number))

        return cache.open(stored(number, size), f"file-{number}", fetch, needed)

    def before_writing(self) -> None:
        """For disks that are full."""


def kept(folder: Path) -> list[int]:
    return sorted(path.read_bytes()[0] for path in (folder / "files").iterdir())


def test_what_is_kept_is_not_fetched_again_and_the_oldest_used_goes_first(tmp_path):
    cache, source = NodeCache(tmp_path, 3 * SIZE), Source()
    for number in (1, 2, 3, 1, 4, 5):
        opened = source.open(cache, number, size=None if number == 4 else SIZE)
        assert opened is not None
        assert opened.read_all() == content(number)
    assert source.fetched == [1, 2, 3, 4, 5]
    assert kept(tmp_path) == [1, 4, 5]
    assert list((tmp_path / "arriving").iterdir()) == []


def test_what_is_held_stays_unless_a_needed_file_finds_no_other_room(tmp_path):
    cache, source = NodeCache(tmp_path, 3 * SIZE), Source()
    first, second = source.open(cache, 1), source.open(cache, 2)
    assert first is not None
    assert second is not None
    first.hold()
    second.hold()
    source.open(cache, 3)
    source.open(cache, 4)
    assert kept(tmp_path) == [1, 2, 4]
    assert source.open(cache, 5, needed=False) is not None
    assert kept(tmp_path) == [1, 2, 5]
    third = source.open(cache, 5)
    assert third is not None
    third.hold()
    assert source.open(cache, 6, needed=False) is None
    assert 6 not in source.fetched
    assert source.open(cache, 6) is not None
    assert kept(tmp_path) == [2, 5, 6]
    assert first.read_all() == content(1)
    second.release()
    assert source.open(cache, 7, needed=False) is not None
    assert kept(tmp_path) == [2, 5, 7]


def test_a_file_larger_than_the_cache_is_refused_by_key(tmp_path):
    with pytest.raises(UserError, match=rf"data\.cache_bytes={SIZE - 1} is too small for file-1 of {SIZE} bytes"):
        Source().open(NodeCache(tmp_path, SIZE - 1), 1)


@pytest.mark.slow
def test_threads_that_need_one_file_fetch_it_once_and_who_reads_ahead_does_not_wait(tmp_path):
    cache, source = NodeCache(tmp_path, 10 * SIZE), Source(seconds=0.5)
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(lambda _: source.open(cache, 1), range(8)))
    assert source.fetched == [1]
    assert all(file is not None and file.read_all() == content(1) for file in opened)
    busy = threading.Thread(target=source.open, args=(cache, 2))
    busy.start()
    while source.fetched != [1, 2]:
        time.sleep(0.01)
    began = time.monotonic()
    assert source.open(cache, 2, needed=False) is None
    assert time.monotonic() - began < 0.3
    busy.join()


@pytest.mark.slow
def test_arriving_files_count_and_a_needed_file_waits_for_the_room_they_will_leave(tmp_path):
    cache, source = NodeCache(tmp_path, SIZE), Source(seconds=0.3)
    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(lambda number: source.open(cache, number), (1, 2, 3)))
    assert sorted(source.fetched) == [1, 2, 3]
    assert len(kept(tmp_path)) == 1


def test_a_wrong_checksum_is_fetched_again_once(tmp_path):
    cache = NodeCache(tmp_path, 10 * SIZE)
    answers = [b"wrong", content(1), b"wrong", content(2)[:-1], content(2)]
    opened = cache.open(stored(1), "file-1", lambda path: path.write_bytes(answers.pop(0)))
    assert opened is not None
    assert opened.read_all() == content(1)
    with pytest.raises(WrongChecksum):
        cache.open(stored(2), "file-2", lambda path: path.write_bytes(answers.pop(0)))
    assert kept(tmp_path) == [1]
    assert list((tmp_path / "arriving").iterdir()) == []


def test_a_file_that_was_cut_off_on_the_disk_is_fetched_anew(tmp_path):
    cache, source = NodeCache(tmp_path, 10 * SIZE), Source()
    source.open(cache, 1)
    (tmp_path / "files" / stored(1).sha256).write_bytes(b"half")
    opened = source.open(cache, 1)
    assert opened is not None
    assert opened.read_all() == content(1)
    assert source.fetched == [1, 1]


def test_while_a_full_disk_is_given_room_the_cache_keeps_that_of_the_file_that_arrives(tmp_path):
    cache, source = NodeCache(tmp_path, 2 * SIZE), Source()
    source.open(cache, 1)
    held = []

    class FullDisk(Source):
        def before_writing(self) -> None:
            if len(self.fetched) == 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            # others fetch ahead meanwhile: there is room for one
            for number in (3, 4):
                if opened := source.open(NodeCache(tmp_path, 2 * SIZE), number, needed=False):
                    opened.hold()
                    held.append(opened)

    opened = FullDisk().open(cache, 2)
    assert opened is not None
    assert opened.read_all() == content(2)
    assert kept(tmp_path) == [2, 3]


KILLED = """
import hashlib, sys, time
from pathlib import Path
from latentscale.storage.node_cache import NodeCache
from latentscale.storage.dataset_files import StoredFile

def fetch(path):
    path.write_bytes(b"\\1" * 500)
    print("half", flush=True)
    time.sleep(600)

whole = b"\\1" * 1000
NodeCache(Path(sys.argv[1]), 2500).open(StoredFile("a", hashlib.sha256(whole).hexdigest(), 1000, 1000), "a", fetch)
"""


@pytest.mark.parametrize("next_number", [1, 2])
def test_who_is_killed_while_fetching_leaves_nothing_broken_and_no_room_taken(tmp_path, next_number):
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(KILLED))
    folder = tmp_path / "cache"
    victim = subprocess.Popen([sys.executable, script, folder], stdout=subprocess.PIPE, text=True)
    try:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "half\n"
        assert len(list((folder / "arriving").iterdir())) == 2
        victim.send_signal(signal.SIGKILL)
        victim.wait(timeout=10)
    finally:
        victim.kill()
        victim.wait()
    assert list((folder / "files").iterdir()) == []
    cache, source = NodeCache(folder, SIZE), Source()
    opened = source.open(cache, next_number)
    assert opened is not None
    assert opened.read_all() == content(next_number)
    assert list((folder / "arriving").iterdir()) == []


CROWD = """
import errno, random, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from latentscale.storage.node_cache import NodeCache
from test_node_cache import Source, content

cache, draw = NodeCache(Path(sys.argv[1]), 4000), random.Random(int(sys.argv[2]))

class SmallDisk(Source):
    def before_writing(self):
        if draw.random() < 0.2:
            raise OSError(errno.ENOSPC, "No space left on device")

source = SmallDisk(0.002)
for _ in range(60):
    number = draw.randrange(12)
    try:
        opened = source.open(cache, number, needed=draw.random() < 0.7)
    except OSError as error:
        assert error.errno == errno.ENOSPC
        continue
    if opened:
        opened.hold()
        assert opened.read_all() == content(number)
        if draw.random() < 0.8:
            opened.release()
"""


@pytest.mark.slow
def test_a_crowd_of_processes_never_exceeds_the_bound(tmp_path):
    """Although the disk has no room again and again."""
    script, folder = tmp_path / "crowd.py", tmp_path / "cache"
    script.write_text(CROWD.format(paths=[str(Path(__file__).parent)]))
    crowd = [subprocess.Popen([sys.executable, script, folder, str(seed)]) for seed in range(4)]
    most = 0
    try:
        deadline = time.monotonic() + 60
        while any(process.poll() is None for process in crowd) and time.monotonic() < deadline:
            if (folder / "locks").is_dir():
                # while nobody makes room, nothing is counted that goes before others come
                with FileLock(folder / "locks" / "room", poll_interval=0.001):
                    most = max(most, sum(entry.stat().st_size for entry in os.scandir(folder / "files")))
            time.sleep(0.002)
        assert [process.returncode for process in crowd] == [0] * 4
    finally:
        for process in crowd:
            process.kill()
            process.wait()
    assert SIZE <= most <= 4 * SIZE
    assert len(kept(folder)) <= 4
    assert list((folder / "arriving").iterdir()) == []
