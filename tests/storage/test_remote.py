"""Shards behind a web server: the same samples as of local files, and every way in which it can fail is named."""

import logging
import pickle
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from cache_files import cached_sizes
from numbered_images import LABELS, SHAPE, numbered_samples
from web_server import WebServer, serving

from latentscale.data.datasets import open_dataset, open_held_out
from latentscale.errors import UserError
from latentscale.shards.dataset_writer import write_shards
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage.dataset_files import StorageOptions
from latentscale.storage.retrying import is_transient, retry

TAR = "shard-000001.tar"


@pytest.fixture
def web(numbered):
    with serving(numbered(10, 4).path) as server:
        yield server


def options(tmp_path: Path, retry_seconds: float = 20.0, cache_bytes: int = 2**20) -> StorageOptions:
    return StorageOptions(tmp_path / "cache", cache_bytes, retry_seconds, stall_seconds=1.0)


def assert_same(remote: ShardedDataset, local: ShardedDataset) -> None:
    for number in reversed(range(local.count)):
        assert remote.read(*divmod(number, 4)) == local.read(*divmod(number, 4))


def test_a_remote_is_the_dataset_that_its_copy_is(web, numbered, tmp_path):
    local = numbered(10, 4)
    remote = pickle.loads(pickle.dumps(ShardedDataset.open(web.url + "/", options(tmp_path))))
    for attribute in ("name", "shape", "count", "labels", "label_sizes", "licence", "fingerprint"):
        assert getattr(remote, attribute) == getattr(local, attribute)
    assert_same(remote, local)
    assert remote.label_counts().tolist() == local.label_counts().tolist()
    assert remote.location(1, 2) == f"{web.url}/shard-000001.tar member 2"
    assert set(web.tars().values()) == {1}
    # another process of the node, another run
    assert_same(ShardedDataset.open(web.url, options(tmp_path)), local)
    assert set(web.tars().values()) == {1}
    assert web.gets["dataset.json"] == 2
    remote.verify()


def test_file_urls_pass_through_the_cache_too(numbered, tmp_path):
    local = numbered(10, 4)
    remote = ShardedDataset.open(f"file://{local.path}", options(tmp_path))
    assert_same(remote, local)
    assert len(list((tmp_path / "cache" / "files").iterdir())) == 6


def test_a_cache_of_two_shards_serves_them_all(web, numbered, tmp_path):
    size = int(numbered(10, 4).shard_sizes_bytes.max())
    assert_same(ShardedDataset.open(web.url, options(tmp_path, cache_bytes=2 * size + 9000)), numbered(10, 4))
    assert sum(cached_sizes(tmp_path / "cache")) <= 2 * size + 9000


@pytest.mark.parametrize(
    "fault", ["refuse", pytest.param("hang", marks=pytest.mark.slow), "close early", "truncate", "flip"]
)
def test_what_fails_once_is_fetched_again(web, numbered, tmp_path, fault):
    web.faults = {TAR: [fault], "shard-000001.index.safetensors": [fault], "dataset.json": []}
    assert_same(ShardedDataset.open(web.url, options(tmp_path)), numbered(10, 4))
    assert web.gets[TAR] == 2


@pytest.mark.parametrize(
    ("fault", "message", "attempts"),
    [
        pytest.param(
            "refuse", r"cannot be fetched for data\.retry_seconds=1 .*503", range(2, 50), marks=pytest.mark.slow
        ),
        pytest.param(
            "hang",
            r"cannot be fetched for data\.retry_seconds=1 .*no bytes for data\.stall_seconds=1",
            range(1, 4),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "close early", r"cannot be fetched for data\.retry_seconds=1", range(2, 50), marks=pytest.mark.slow
        ),
        ("truncate", r"is damaged \(fetched twice, its SHA-256", range(2, 3)),
        ("flip", r"is damaged \(fetched twice, its SHA-256", range(2, 3)),
        ("forbid", r"cannot be fetched \(403", range(1, 2)),
    ],
)
def test_what_fails_for_good_is_named_in_one_line_in_time(web, tmp_path, fault, message, attempts):
    dataset = ShardedDataset.open(web.url, options(tmp_path, retry_seconds=1.0))
    web.faults = {TAR: [fault] * 100}
    began = time.monotonic()
    with pytest.raises(UserError, match=rf"^{web.url}/{TAR} {message}") as refused:
        dataset.read(1, 0)
    assert time.monotonic() - began < 6
    assert "\n" not in str(refused.value)
    assert web.gets[TAR] in attempts
    assert list((tmp_path / "cache" / "arriving").iterdir()) == []
    web.faults = {}
    dataset.read(1, 0)


def test_a_missing_shard_is_named_at_once(numbered, tmp_path):
    out = tmp_path / "data"
    write_shards(numbered_samples(10), out, "n", SHAPE, LABELS, "CC0", 4 * 2048)
    (out / TAR).unlink()
    with serving(out) as web:
        with pytest.raises(UserError, match=rf"{TAR} cannot be fetched .*upload it"):
            ShardedDataset.open(web.url, options(tmp_path)).read(1, 0)
        assert web.gets[TAR] == 1


@pytest.mark.slow
def test_a_dead_remote_is_told_of_once_and_then_refused(web, tmp_path, caplog):
    web.close()
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(UserError, match=r"dataset\.json cannot be fetched for data\.retry_seconds=1.5"),
    ):
        ShardedDataset.open(web.url, options(tmp_path, retry_seconds=1.5))
    assert len(caplog.records) == 1
    assert "retrying for another" in caplog.text


@pytest.mark.slow
def test_a_remote_that_comes_back_is_waited_for(web, numbered, tmp_path):
    dataset = ShardedDataset.open(web.url, options(tmp_path))
    web.faults = {"": ["refuse"]}
    threading.Timer(1.0, web.faults.clear).start()
    began = time.monotonic()
    assert dataset.read(0, 0) == numbered(10, 4).read(0, 0)
    assert time.monotonic() - began > 0.9


def test_single_samples_are_read_in_ranges_where_the_server_gives_them(web, numbered, tmp_path):
    places = [(0, 3), (2, 1), (1, 0)]
    local = [numbered(10, 4).read(*place) for place in places]
    assert list(ShardedDataset.open(web.url, options(tmp_path)).read_sparse(places)) == local
    assert web.tars() == {}
    assert sum(count for name, count in web.ranges.items() if name.endswith(".tar")) == 3
    web.give_ranges = False
    assert list(ShardedDataset.open(web.url, options(tmp_path)).read_sparse(places)) == local
    assert set(web.tars().values()) == {1}


def test_splits_are_found_and_read_once(numbered, tmp_path):
    for split, count in (("train", 10), ("test", 5)):
        write_shards(numbered_samples(count), tmp_path / "data" / split, "n", SHAPE, LABELS, "CC0", 4 * 2048)
    with serving(tmp_path / "data") as web:
        arguments = "shards", web.url
        train = open_dataset(*arguments, "train", options(tmp_path))
        held_out = open_held_out(train, *arguments, options(tmp_path))
        assert (train.count, held_out.count) == (10, 5)
        # where there is no description, the server is asked for a listing
        descriptions = {"dataset.json": 1, "train/dataset.json": 1, "test/dataset.json": 1}
        assert web.gets == {**descriptions, "": 1, "val/": 1}
        whole = open_dataset("shards", f"{web.url}/train", "train", options(tmp_path))
        assert open_held_out(whole, "shards", f"{web.url}/train/", options(tmp_path)) is whole
        with pytest.raises(UserError, match=rf"data\.path={web.url}/test holds no test split"):
            open_dataset("shards", f"{web.url}/test", "test", options(tmp_path))
    with serving(tmp_path) as empty, pytest.raises(UserError, match=r"holds no train split .*dataset\.json"):
        open_dataset("shards", empty.url, "train", options(tmp_path))


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [("s3://bucket/key", "s3fs", "s3"), ("gs://bucket/key", "gcsfs", "gcs"), ("https://host/x", "aiohttp", "http")],
)
def test_a_missing_package_is_named_with_its_extra(tmp_path, url, module, extra):
    program = f"""
import sys
sys.modules[{module!r}] = None
from pathlib import Path
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage.dataset_files import StorageOptions
from latentscale.errors import UserError
try:
    ShardedDataset.open({url!r}, StorageOptions(Path({str(tmp_path)!r})))
except UserError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.stdout == (
        f"data.path={url} needs a package that is not installed: pip install 'latentscale[{extra}]'\n"
    ), ended.stderr


def test_urls_that_nothing_reads_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"data\.path=foo://x cannot be read .*s3://"):
        ShardedDataset.open("foo://x", options(tmp_path))


def test_a_cache_folder_that_cannot_be_written_is_named(web, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"data\.cache_folder=.*cannot be written"):
        ShardedDataset.open(web.url, options(tmp_path)).read(0, 0)


@pytest.mark.slow
def test_waits_grow_and_end_in_time():
    class Answer(Exception):
        status = 404

    assert is_transient(ConnectionError())
    assert is_transient(TimeoutError())
    for lasting in (FileNotFoundError(), PermissionError(), OSError(28, "full"), Answer(), ValueError(), UserError()):
        assert not is_transient(lasting)
    begun: list[float] = []

    def fail() -> None:
        begun.append(time.monotonic())
        raise ConnectionError

    told: list[float] = []
    with pytest.raises(ConnectionError):
        retry(fail, 2.0, lambda error, left: told.append(left))
    assert 1.9 < begun[-1] - begun[0] < 4  # the last one begins in time, but for a busy machine's hiccup
    assert told == sorted(told, reverse=True)
    # 0.5 + 1 + 1 seconds are the longest first waits; without waits there would be thousands of attempts
    assert 3 <= len(begun) <= 60


def test_web_server_counts(numbered):
    """The positive control of every count above."""
    with serving(numbered(10, 4).path) as web:
        assert isinstance(web, WebServer)
        for _ in range(2):
            urllib.request.urlopen(f"{web.url}/{TAR}", timeout=10).read()
        assert web.tars() == {TAR: 2}
