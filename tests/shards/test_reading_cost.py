"""What reading costs does not grow with the dataset: memory, opening, resuming, the first batch."""

import hashlib
import json
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from numbered_images import LABELS, SHAPE, numbered_png, numbered_samples
from safetensors.numpy import save

from latentscale.shards.dataset_writer import write_shards
from latentscale.shards.shard_format import FORMAT, INDEX_TYPES

pytestmark = pytest.mark.slow

LARGEST_BYTES = 200 * 10**6
LONGEST_RESUME_SECONDS = 1.0
LONGEST_FIRST_BATCH_SECONDS = 2.0
PNG = numbered_png(0)


def synthetic(folder: Path, shards: int, per_shard: int) -> Path:
    """A dataset whose indexes are whole and whose images are all the same one, in tars that hold it once."""
    folder.mkdir()
    arrays = {
        "offset": np.zeros(per_shard),
        "size": np.full(per_shard, len(PNG)),
        "label": np.arange(per_shard) % len(LABELS),
        "extension": np.zeros(per_shard),
        "crc32": np.full(per_shard, zlib.crc32(PNG)),
    }
    index = save({key: arrays[key].astype(dtype) for key, dtype in INDEX_TYPES.items()})
    index_sha256 = hashlib.sha256(index).hexdigest()
    entries = []
    for shard in range(shards):
        name = f"shard-{shard:06d}"
        (folder / f"{name}.tar").write_bytes(PNG)
        (folder / f"{name}.index.safetensors").write_bytes(index)
        entries.append(
            {
                "file": f"{name}.tar",
                "index": f"{name}.index.safetensors",
                "count": per_shard,
                "bytes": len(PNG),
                "sha256": f"{shard:064x}",
                "index_sha256": index_sha256,
            }
        )
    description = {
        "format": FORMAT,
        "version": 1,
        "name": "synthetic",
        "shape": list(SHAPE),
        "count": shards * per_shard,
        "labels": LABELS,
        "licence": "CC0",
        "extensions": ["png"],
        "shards": entries,
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


READ = """
import sys
import numpy as np
from latentscale.data.order import Order
from latentscale.shards.sharded_dataset import ShardedDataset

dataset = ShardedDataset.open(sys.argv[1])
order = Order(dataset.shard_counts, 8, 0, 8192)
epoch = order.samples_per_epoch_per_stream
for part in range(int(sys.argv[2])):
    # everywhere in three epochs, in every shard
    for stream in range(8):
        shards, members = order.locate_run(stream, part * 3 * epoch // int(sys.argv[2]), 64)
        for shard, member in zip(shards.tolist(), members.tolist()):
            dataset.read(shard, member)
for shard in range(len(dataset.shard_counts)):
    dataset.read(shard, 0)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024, "torch" in sys.modules)
"""


def peak_bytes(folder: Path) -> int:
    """The most memory that a process took which opened a dataset, ordered it and read all over it."""
    ended = subprocess.run([sys.executable, "-c", READ, folder, "40"], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    found, with_torch = ended.stdout.split()
    # torch alone takes as much again, whatever the dataset
    assert with_torch == "False"
    return int(found)


@pytest.mark.parametrize(("shards", "per_shard"), [(160, 62_500), (5_000, 2_000)])
def test_a_reader_of_ten_million_samples_takes_no_more_than_200_mb(tmp_path, shards, per_shard):
    large = peak_bytes(synthetic(tmp_path / "large", shards, per_shard))
    small = peak_bytes(synthetic(tmp_path / "small", 16, per_shard))
    print(f"{shards} shards of {per_shard}: {large / 1e6:.0f} MB, 16 shards: {small / 1e6:.0f} MB")
    assert large <= LARGEST_BYTES
    # the indexes alone would take 170 MB
    assert large - small <= 120 * 10**6


RESUME = """
import sys, time
from latentscale.data.loader import Loader
from latentscale.data.order import Order
from latentscale.data.step_reader import StepReader
from latentscale.shards.sharded_dataset import ShardedDataset

began = time.perf_counter()
dataset = ShardedDataset.open(sys.argv[1])
reader = StepReader(dataset, Order(dataset.shard_counts, 8, 0, 8192), range(8), 8, (1, 4, 4))
start = int(sys.argv[2]) // 64
with Loader(reader, workers=0, prefetch_steps=1, start_step=start, stop_step=start + 1, finish=lambda *a: [a]) as steps:
    _, images, _ = next(steps)
assert images.shape[1:] == (64, 1, 4, 4)
print(time.perf_counter() - began)
"""


def first_batch_seconds(folder: Path, position: int, enough_seconds: float) -> float:
    """From imports to a batch, in a process of its own; the best of three, which others disturb least.

    One that is quick enough is enough.
    """
    best = float("inf")
    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, "-c", RESUME, folder, str(position)], capture_output=True, text=True, timeout=120
        )
        assert ended.returncode == 0, ended.stderr
        best = min(best, float(ended.stdout))
        if best <= enough_seconds:
            break
    print(f"first batch at {position}: {best:.3f} s")
    return best


def test_a_run_resumes_in_the_middle_of_two_million_samples_within_a_second(tmp_path):
    folder = synthetic(tmp_path / "data", 200, 10_000)
    assert first_batch_seconds(folder, 10**6, LONGEST_RESUME_SECONDS) <= LONGEST_RESUME_SECONDS


def test_the_first_batch_of_a_hundred_shards_comes_within_two_seconds(tmp_path):
    write_shards(numbered_samples(3000), tmp_path / "data", "n", SHAPE, LABELS, "CC0", 30 * 2048)
    assert len(list((tmp_path / "data").glob("*.tar"))) == 100
    assert first_batch_seconds(tmp_path / "data", 0, LONGEST_FIRST_BATCH_SECONDS) <= LONGEST_FIRST_BATCH_SECONDS


def test_a_description_of_ten_thousand_shards_is_read_in_time(tmp_path):
    folder = synthetic(tmp_path / "data", 10_000, 2)
    began = time.perf_counter()
    assert first_batch_seconds(folder, 0, LONGEST_FIRST_BATCH_SECONDS) <= LONGEST_FIRST_BATCH_SECONDS
    assert time.perf_counter() - began < 60
