"""``latentscale shards verify``, ``info`` and ``split`` of URLs: what is there now, whatever a cache holds."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from buckets import google_bucket, s3_bucket
from layouts import afhq, built, contents
from PIL import Image
from web_server import WebServer, serving

from latentscale.commands.storage import options_for
from latentscale.errors import UserError
from latentscale.shards.dataset_folders import dataset_folders
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.shards.splitting import fractions, split_dataset
from latentscale.shards.verifying import verify
from latentscale.storage.dataset_files import StorageOptions
from launching import Processes

COMMAND = str(Path(sys.executable).with_name("latentscale"))
SHARDS = 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine training images in three shards, nine test images in three."""
    root = tmp_path_factory.mktemp("whole")
    afhq(root / "in")
    built("afhq", root / "in", root / "out", shard_bytes=10 * 1024, format="png", resolution=8)
    assert len(list((root / "out").glob("*/*.tar"))) == SHARDS
    return root / "out"


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copied"))


@pytest.fixture
def web(copied: Path) -> Iterator[WebServer]:
    with serving(copied) as server:
        yield server


def options(tmp_path: Path, retry_seconds: float = 5.0) -> StorageOptions:
    return StorageOptions(tmp_path / "cache", retry_seconds=retry_seconds, stall_seconds=5.0)


@pytest.mark.slow
@pytest.mark.parametrize("give_ranges", [True, False])
def test_verify_reads_every_shard_once_and_keeps_nothing(web, tmp_path, give_ranges):
    web.give_ranges = give_ranges
    done = []
    for workers in (0, 2):
        web.gets.clear()
        verified = verify(web.url, workers, lambda *report: done.append(report), options(tmp_path))
        assert (verified.datasets, verified.shards, verified.samples, verified.broken) == (2, SHARDS, 18, [])
        whole = [count for name, count in web.gets.items() if name.endswith(".tar")]
        assert whole == ([] if give_ranges else [1] * SHARDS)
    assert done[: SHARDS + 1] == [("shards", number, SHARDS) for number in range(SHARDS + 1)]
    assert not (tmp_path / "cache").exists()
    assert verify(f"{web.url}/train", 0, options=options(tmp_path)).samples == 9


@pytest.mark.slow
@pytest.mark.parametrize("give_ranges", [True, False])
def test_what_is_broken_there_is_named_as_it_is_here(web, copied, tmp_path, give_ranges):
    web.give_ranges = give_ranges
    tar = copied / "train/shard-000001.tar"
    content = bytearray(tar.read_bytes())
    content[5 * 512 + 50] ^= 0x10  # within the first image
    tar.write_bytes(content)
    cut = copied / "test/shard-000000.tar"
    cut.write_bytes(cut.read_bytes()[:4000])
    (copied / "test/shard-000001.tar").unlink()
    longer = copied / "test/shard-000002.tar"
    longer.write_bytes(longer.read_bytes() + b"x")
    (copied / "test/shard-000002.index.safetensors").write_bytes(b"nothing")
    found = verify(web.url, 0, options=options(tmp_path)).broken
    for line in (
        f"{web.url}/train/shard-000001.tar has the wrong SHA-256 (not the one in dataset.json)",
        f"{web.url}/train/shard-000001.tar member 000000003.png is not a readable image",
        f"{web.url}/test/shard-000000.tar has 4000 bytes instead of",
        f"{web.url}/test/shard-000001.tar cannot be read",
        f"{web.url}/test/shard-000002.tar has {longer.stat().st_size} bytes instead of {longer.stat().st_size - 1}",
        f"{web.url}/test/shard-000002.index.safetensors has the wrong SHA-256 (not the one in dataset.json)",
        f"{web.url}/test/shard-000002.index.safetensors is not an index",
    ):
        assert any(broken.startswith(line) for broken in found), (line, found)
    assert all("\n" not in line for line in found)
    here = [line.replace(str(copied), web.url) for line in verify(copied, 0).broken]
    assert [line for line in found if "cannot be read" not in line] == [x for x in here if "cannot be read" not in x]


@pytest.mark.slow
def test_a_remote_that_is_dead_is_no_damage(web, tmp_path):
    web.faults = {"train/shard-000001.tar": ["refuse"] * 1000}
    with pytest.raises(UserError, match=r"shard-000001\.tar cannot be fetched .*503") as refused:
        verify(web.url, 0, options=options(tmp_path, retry_seconds=0.5))
    assert "\n" not in str(refused.value)
    with pytest.raises(
        UserError, match=r"/nothing holds no dataset\.json .*and neither do its folders train/, val/, test/"
    ):
        dataset_folders(f"{web.url}/nothing", options(tmp_path))


def test_messages_to_commands_name_no_keys_of_runs(web, tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTSCALE_CACHE", str(tmp_path / "cache"))
    kind = options_for(web.url)
    assert kind is not None
    tight = replace(kind, retry_seconds=0.3)
    messages = []

    def refused(act: Callable[[], object]) -> None:
        with pytest.raises(UserError) as error:
            act()
        messages.append(str(error.value))

    web.faults = {"train/dataset.json": ["refuse"] * 1000}
    refused(lambda: ShardedDataset.open(f"{web.url}/train", tight))
    web.faults = {}
    refused(lambda: ShardedDataset.open("unknown://x", tight))
    refused(lambda: ShardedDataset.open(f"{web.url}/train", replace(kind, cache_bytes=9)).read(0, 0))
    (tmp_path / "cache").write_text("no folder")
    refused(lambda: ShardedDataset.open(f"{web.url}/train", tight).read(0, 0))
    for message, words in zip(
        messages,
        ("for 0.3 s (503", "unknown://x cannot be read", "larger than the cache of 9 bytes", "LATENTSCALE_CACHE"),
        strict=True,
    ):
        assert words in message
        assert "data." not in message


@pytest.mark.slow
def test_a_split_of_a_url_is_that_of_the_folder(web, copied, tmp_path):
    plan = fractions({"train": 2.0, "test": 1.0}, 0, True)
    split_dataset(copied, tmp_path / "here", plan, 2**20)
    counts = split_dataset(web.url, tmp_path / "there", plan, 2**20, options=options(tmp_path))
    assert counts == {"train": 12, "test": 6}
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    kept = [path for path in (tmp_path / "cache/files").iterdir() if path.stat().st_size > 4000]
    assert kept == []  # no shard
    tar = copied / "train/shard-000002.tar"
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    with pytest.raises(
        UserError, match=r"train/shard-000002\.tar has the wrong SHA-256 \(not the one in dataset\.json\)"
    ):
        split_dataset(web.url, tmp_path / "no", plan, 2**20, options=options(tmp_path))
    assert not (tmp_path / "no").exists()


@contextmanager
def web_of(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with serving(folder) as server:
        yield server.url, {}


def shards(processes: Processes, place: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    environment = {"LATENTSCALE_CACHE": str(place / "cache"), "COLUMNS": "100", **environment}
    finished = processes.run([COMMAND, "shards", *arguments], place, **environment)
    return finished.code, finished.out, finished.err


@pytest.mark.parametrize("remote", ["web", "s3", "gs"])
def test_the_commands_take_urls(whole, tmp_path, processes, remote):
    places = {"web": web_of, "s3": s3_bucket, "gs": google_bucket}
    with places[remote](whole) as (url, environment):
        code, out, err = shards(processes, tmp_path, "verify", url, "--workers", "1", **environment)
        assert (code, out) == (0, f"{url}: 18 samples in {SHARDS} shards of 2 datasets, all intact\n"), err
        assert not (tmp_path / "cache").exists()
        code, out, err = shards(processes, tmp_path, "info", url, **environment)
        assert code == 0, err
        assert "picture: contact-sheet.png" in out
        assert next(line for line in out.splitlines() if line.startswith("cat ")).split()[1:3] == ["3", "3"]
        with Image.open(tmp_path / "contact-sheet.png") as picture:
            assert picture.height > 6 * 64
        code, out, err = shards(
            processes, tmp_path, "split", url, "--out", "cut", "--folds", "3", "--fold", "1", **environment
        )
        assert (code, out) == (0, "cut: 12 train, 6 test samples\n"), err
