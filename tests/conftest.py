"""Fixtures of all tests: a starter of real processes, the session's folders, shards of numbered images."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from numbered_images import LABELS, SHAPE, numbered_samples
from small_disk import SmallDisk

from latentscale.shards.dataset_writer import write_shards
from latentscale.shards.sharded_dataset import ShardedDataset
from launching import ROOT, Finished, Processes, Train, launch_command, overrides
from shared_cache import share_bundled
from skipping import needs_linux, pytest_make_collect_report, pytest_runtest_makereport

__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport"]

# files that take minutes; with several pytest workers they start first, so that none is left for the end
LONGEST = (
    "test_faults.py", "test_interruptions.py", "test_deepspeed.py", "test_node_faults.py", "test_every_method.py",
    "test_remote_training.py", "test_shard_invariance.py", "test_node_launcher.py", "test_invariance.py",
    "test_collectives.py", "test_agreement.py", "test_learning.py", "test_localcluster.py",
    "test_clusters_reproduction.py", "test_documents.py", "test_wheel.py",
)  # fmt: skip

SLOW_FIXTURES = {"processes", "train", "small_disk"}

# no deadline: a busy machine may delay an example
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, each in its own order; what starts processes or mounts disks is slow, on Linux alone."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())) or item.get_closest_marker("processes"):
            item.add_marker("slow")
            item.add_marker(needs_linux)


def pytest_collection_finish() -> None:
    """Leave what has been imported to no garbage collection: a fifth of the time that a compilation takes."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def processes() -> Iterator[Processes]:
    """A starter of real processes; remaining processes are killed at the end."""
    starter = Processes()
    yield starter
    starter.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk that can be filled; mounting it needs root."""
    try:
        disk = SmallDisk(tmp_path / "small-disk")
    except (PermissionError, FileNotFoundError) as error:
        pytest.skip(f"no small disk can be mounted here ({error}): it needs root with CAP_SYS_ADMIN")
    yield disk
    disk.unmount()


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder for this session, so that tests neither use nor fill the user's.

    The workers of a session share the bundled datasets, of which one takes ten seconds to write, and their locks, so
    that one worker writes them and the others wait.
    """
    folder = tmp_path_factory.mktemp("cache")
    if "PYTEST_XDIST_WORKER" in os.environ:
        share_bundled(folder, tmp_path_factory.getbasetemp().parent / "bundled")
    before = os.environ.get("LATENTSCALE_CACHE")
    os.environ["LATENTSCALE_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["LATENTSCALE_CACHE"]
    else:
        os.environ["LATENTSCALE_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder for temporary files of the processes that tests start: torchrun leaves empty ones."""
    folder = tmp_path_factory.mktemp("tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], ShardedDataset]:
    """Opens (count, samples per shard), written once per session; the last shard holds the remainder."""
    opened: dict[tuple[int, int], ShardedDataset] = {}

    def dataset(count: int, per_shard: int) -> ShardedDataset:
        if (count, per_shard) not in opened:
            out: Path = tmp_path_factory.mktemp("numbered") / "data"
            write_shards(numbered_samples(count), out, "numbered", SHAPE, LABELS, "CC0", shard_bytes=per_shard * 2048)
            opened[count, per_shard] = ShardedDataset.open(out)
        return opened[count, per_shard]

    return dataset


@pytest.fixture
def train(processes: Processes) -> Train:
    """Run a recipe as a user does: ``train("pvdgan", folder, processes=2, training__steps=3)``."""

    def run(
        recipe: str,
        folder: Path,
        processes_count: int = 1,
        check: bool = True,
        interpreter: bool = False,
        **changes: object,
    ) -> Finished:
        command = launch_command(processes_count, ROOT / "recipes" / f"{recipe}.py")
        finished = processes.run([*command, f"run.dir={folder}", *overrides(**changes)], interpreter=interpreter)
        if check:
            assert finished.code == 0, finished.err[-4000:]
        return finished

    return run
