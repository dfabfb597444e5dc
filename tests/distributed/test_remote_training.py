"""A run over a web server trains what one over the local copy does: cache smaller than the data, resume included."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import s3_bucket
from cache_files import cached_sizes
from small_disk import SmallDisk
from states import final_state, worst_difference
from torch import Tensor
from web_server import WebServer, serving

from latentscale.data.first_use import bundled_folder
from latentscale.shards.dataset_writer import Sample, write_shards
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.sources.digits import LICENCE, SHAPE
from launching import ROOT, Processes, Train, launch_command, overrides

TOLERANCE = 1e-9
STEPS = 16
SHARD_IMAGES, SHARD_BYTES = 30, 30 * 2048
CACHE_BYTES = 24 * (SHARD_BYTES + 12_000)
SETTINGS = {
    "training__steps": STEPS,
    "distributed__streams": 4,
    "data__name": "shards",
    "data__shuffle_window_images": 32,
    "data__cache_bytes": CACHE_BYTES,
    "data__retry_seconds": 20,
}

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits in 50 shards for training and 10 to be held out."""
    folder = tmp_path_factory.mktemp("shards")
    for split in ("train", "test"):
        digits = ShardedDataset.open(bundled_folder("digits", split))
        samples = [
            Sample(image, extension, label)
            for shard, count in enumerate(digits.shard_counts.tolist())
            for image, extension, label in (digits.read(shard, member) for member in range(count))
        ]
        write_shards(samples, folder / split, "digits", SHAPE, digits.labels, LICENCE, shard_bytes=SHARD_BYTES)
    assert len(list((folder / "train").glob("*.tar"))) == 1500 // SHARD_IMAGES
    return folder


@pytest.fixture
def web(shards: Path) -> Iterator[WebServer]:
    with serving(shards) as server:
        yield server


@pytest.fixture(scope="module")
def reference(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """What one process over the local files becomes."""
    folder = tmp_path_factory.mktemp("reference")
    command = [*launch_command(1, ROOT / "recipes" / "pvdgan.py"), f"run.dir={folder}"]
    # an interpreter of its own, with a hash seed of its own: forked runs share theirs
    finished = Processes().run([*command, *overrides(**SETTINGS, data__path=shards)], interpreter=True)
    assert finished.code == 0, finished.err
    return final_state(folder)


def kept_bytes(cache: Path) -> int:
    return sum(cached_sizes(cache))


def test_a_remote_run_that_is_resumed_equals_the_local_one(
    web: WebServer, reference: dict[str, Tensor], train: Train, tmp_path: Path
) -> None:
    """Two processes with a worker each; one process without is the run below that stops and goes on."""
    cache, run = tmp_path / "cache", tmp_path / "run"
    remote = {**SETTINGS, "data__path": web.url, "data__cache_folder": cache, "data__workers": 1}
    train("pvdgan", run, 2, **{**remote, "training__steps": 9})
    assert kept_bytes(cache) <= CACHE_BYTES
    train("pvdgan", run, 2, **remote)
    assert worst_difference(final_state(run), reference) <= TOLERANCE
    assert kept_bytes(cache) <= CACHE_BYTES < 50 * SHARD_BYTES
    assert len([name for name in web.gets if name.startswith("train/") and name.endswith(".tar")]) > 20


def test_a_run_moves_from_the_remote_to_its_copy(
    web: WebServer, shards: Path, reference: dict[str, Tensor], train: Train, tmp_path: Path
) -> None:
    remote = {"data__path": web.url, "data__cache_folder": tmp_path / "cache"}
    train("pvdgan", tmp_path / "run", 2, **{**SETTINGS, **remote, "training__steps": 7})
    train("pvdgan", tmp_path / "run", 1, **SETTINGS, data__path=shards)
    assert worst_difference(final_state(tmp_path / "run"), reference) <= TOLERANCE


def test_a_remote_that_dies_stops_the_run_in_one_line_and_the_run_goes_on_when_it_is_back(
    web: WebServer, reference: dict[str, Tensor], train: Train, tmp_path: Path
) -> None:
    remote = {
        **SETTINGS,
        "data__path": web.url,
        "data__cache_folder": tmp_path / "cache",
        "data__prefetch_steps": 1,
        "checkpoint__every_steps": 0,
    }
    # what is held out is read in ranges, and whole shards are all for training
    web.most_tars = 20
    stopped = train("pvdgan", tmp_path / "run", check=False, **{**remote, "data__retry_seconds": 1})
    assert stopped.code == 75, stopped.err
    errors = [line for line in stopped.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert f"error: {web.url}/train/shard-" in errors[0]
    assert "cannot be fetched for data.retry_seconds=1 (503" in errors[0]
    assert "Traceback" not in stopped.err
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))
    web.most_tars = None
    train("pvdgan", tmp_path / "run", **remote)
    assert worst_difference(final_state(tmp_path / "run"), reference) <= TOLERANCE


def test_a_run_over_s3_that_is_resumed_equals_the_local_one(
    shards: Path, reference: dict[str, Tensor], processes: Processes, tmp_path: Path
) -> None:
    """Two processes with a worker each, then one without; the cache never holds the data."""
    with s3_bucket(shards) as (url, environment):
        changes = {**SETTINGS, "data__path": url, "data__cache_folder": tmp_path / "cache"}
        for count, more in ((2, {"training__steps": 9, "data__workers": 1}), (1, {})):
            command = [*launch_command(count, ROOT / "recipes" / "pvdgan.py"), f"run.dir={tmp_path / 'run'}"]
            finished = processes.run([*command, *overrides(**{**changes, **more})], **environment)
            assert finished.code == 0, finished.err
            assert 0 < kept_bytes(tmp_path / "cache") <= CACHE_BYTES < 50 * SHARD_BYTES
    assert worst_difference(final_state(tmp_path / "run"), reference) <= TOLERANCE


def test_a_disk_that_is_full_before_the_cache_is_used_as_far_as_it_goes(
    web: WebServer, reference: dict[str, Tensor], train: Train, small_disk: SmallDisk, tmp_path: Path
) -> None:
    """Other runs' shards take it, then files of others, and in the end nobody."""
    small_disk.resize(CACHE_BYTES + 6 * (SHARD_BYTES + 12_000))
    remote = {
        **SETTINGS,
        "data__path": web.url,
        "data__cache_folder": small_disk.path / "cache",
        "data__cache_bytes": 2**30,
        "checkpoint__every_steps": 2,
    }
    others = small_disk.path / "cache" / "files"
    others.mkdir(parents=True)
    for number in range(27):
        (others / f"{number:064x}").write_bytes(bytes(SHARD_BYTES))
    first = train("pvdgan", tmp_path / "run", 2, **{**remote, "training__steps": 12})
    assert "the disk is full although the cache is not" in first.err
    assert len(list(others.glob("0" * 60 + "*"))) < 20
    shutil.rmtree(small_disk.path / "cache")
    ballast = small_disk.fill(leave_bytes=SHARD_BYTES)
    stopped = train("pvdgan", tmp_path / "run", check=False, **remote)
    assert stopped.code == 2, stopped.err
    (line,) = [line for line in stopped.err.splitlines() if line.startswith("error:")]
    assert f"error: data.cache_folder={small_disk.path / 'cache'} cannot be written (No space left on device)" in line
    assert "make room there" in line
    assert "Traceback" not in stopped.err
    ballast.unlink()
    train("pvdgan", tmp_path / "run", **remote)
    assert worst_difference(final_state(tmp_path / "run"), reference) <= TOLERANCE


def test_streaming_runs_of_one_and_two_processes_are_equal_and_keep_no_shards(
    web: WebServer, train: Train, tmp_path: Path
) -> None:
    streaming = {**SETTINGS, "data__path": web.url, "data__cache_folder": tmp_path / "cache", "data__mode": "streaming"}
    for processes in (1, 2):
        train("pvdgan", tmp_path / f"run-{processes}", processes, **streaming, data__workers=processes - 1)
    one, two = (final_state(tmp_path / f"run-{processes}") for processes in (1, 2))
    assert worst_difference(two, one) <= TOLERANCE
    assert web.tars() == {}
