"""Real shards give one training run whatever reads them: processes, workers, where it was resumed, flips and damage.

Four shards of unequal size with 64 small images, one of them damaged, mirrored at random, trained on in float64.
"""

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from several_runs import run_several
from states import final_state, worst_difference
from torch import Tensor

from latentscale.building.build_dataset import build_dataset
from latentscale.building.build_options import BuildOptions, ImageOptions
from latentscale.data.first_use import CLUSTER_SHARD_POINTS
from latentscale.data.memory_cache import MEMORY_CACHE_BYTES_VARIABLE
from latentscale.decoding.sample_arrays import decode
from latentscale.errors import UserError
from latentscale.shards.dataset_writer import Sample, write_shards
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.sources.registry import list_source
from latentscale.sources.source_options import SourceOptions
from launching import ROOT, Finished, Processes, launch_command, overrides

TOLERANCE = 1e-9
COUNT, DAMAGED, STEPS = 64, 37, 8

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of noise and flat ones differ in size, and so shards in the number of their samples."""
    random = np.random.default_rng(0)
    samples = []
    for number in range(COUNT):
        pixels = random.integers(0, 256, (8, 8), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "BMP" if number % 5 == number // 20 else "PNG")
        samples.append(Sample(file.getvalue(), "bmp" if number % 5 == number // 20 else "png", number % 10))
    samples[DAMAGED] = Sample(samples[DAMAGED].image[:60], "png", 3)
    out = tmp_path_factory.mktemp("shards") / "data"
    write_shards(samples, out, "noise", (1, 8, 8), [str(i) for i in range(10)], "CC0", shard_bytes=36_000)
    counts = ShardedDataset.open(out).shard_counts
    assert len(counts) >= 3
    assert len(set(counts.tolist())) >= 3
    return out


def settings_of(shards: Path, workers: int, **changes: object) -> dict[str, object]:
    """Of a run over the shards."""
    return {
        "data__name": "shards",
        "data__path": shards,
        "data__horizontal_flip": "true",
        "data__on_error": "skip",
        "data__workers": workers,
        "training__steps": STEPS,
        "training__batch": 24,
        "distributed__streams": 12,
        "training__report_every_steps": 2,
        **changes,
    }


def run(
    folder: Path,
    shards: Path,
    count: int,
    workers: int,
    remembers: bool = True,
    interpreter: bool = False,
    **changes: object,
) -> Finished:
    """A launched run; whatever it leaves is ended. It remembers what it has decoded, or decodes all in every epoch."""
    settings = settings_of(shards, workers, **changes)
    processes = Processes()
    try:
        return processes.run(
            [*launch_command(count, ROOT / "recipes" / "pvdgan.py"), f"run.dir={folder}", *overrides(**settings)],
            interpreter=interpreter,
            **({} if remembers else {MEMORY_CACHE_BYTES_VARIABLE: "0"}),
        )
    finally:
        processes.close()


def skipped_samples(folder: Path) -> list[int]:
    """The counts in the run's reports."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record["data/skipped_samples"] for record in records if "data/skipped_samples" in record]


@pytest.fixture(scope="module")
def reference(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], list[int]]:
    """What one process becomes that reads by itself, and how many samples it said it had skipped."""
    folder = tmp_path_factory.mktemp("reference")
    # an interpreter of its own, with a hash seed of its own: forked runs share theirs
    finished = run(folder, shards, 1, 0, interpreter=True)
    assert finished.code == 0, finished.err
    assert finished.err.count("skipped: ") == 1
    assert "is not a readable image" in finished.err
    return final_state(folder), skipped_samples(folder)


def test_two_processes_with_four_workers_each_that_decode_every_image_anew_train_the_same(
    reference: tuple[dict[str, Tensor], list[int]], shards: Path, tmp_path: Path
) -> None:
    finished = run(tmp_path, shards, 2, 4, remembers=False)
    assert finished.code == 0, finished.err
    assert worst_difference(final_state(tmp_path), reference[0]) <= TOLERANCE
    assert skipped_samples(tmp_path) == reference[1]
    assert finished.err.count("skipped: ") == 1
    # two epochs and more: the damaged one was met again, by one process or the other
    assert reference[1][-1] == 1


def test_a_run_moves_from_four_processes_with_workers_to_three_without(
    reference: tuple[dict[str, Tensor], list[int]], shards: Path, tmp_path: Path
) -> None:
    first = run(tmp_path, shards, 4, 2, training__steps=4)
    assert first.code == 0, first.err
    second = run(tmp_path, shards, 3, 0)
    assert second.code == 0, second.err
    assert worst_difference(final_state(tmp_path), reference[0]) <= TOLERANCE
    assert skipped_samples(tmp_path) == reference[1]
    # the checkpoint knows what was skipped: it is counted, and not named again
    assert first.err.count("skipped: ") + second.err.count("skipped: ") == 1


@pytest.fixture(scope="module")
def few(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shard of one sample more than a batch."""
    dataset = ShardedDataset.open(shards)
    out = tmp_path_factory.mktemp("few") / "data"
    samples = [Sample(*dataset.read(0, member)) for member in range(9)]
    write_shards(samples, out, "few", (1, 8, 8), [str(i) for i in range(10)], "CC0")
    return out


def few_run(folder: Path, few: Path, workers: int) -> dict[str, Any]:
    changes = {"run__dir": folder, "training__batch": 8, "distributed__streams": 4}
    return {"method": "pvdgan", "settings": settings_of(few, workers, **changes)}


@pytest.mark.parametrize(("count", "workers"), [(1, (4,)), (3, (2,)), (4, (0, 4))])
def test_one_and_four_processes_train_the_same_with_any_workers(
    reference: tuple[dict[str, Tensor], list[int]], shards: Path, tmp_path: Path, count: int, workers: tuple[int, ...]
) -> None:
    """Corners of 1 … 4 processes by 0 … 4 workers that no other test has; nothing decoded is remembered."""
    runs = [
        {"method": "pvdgan", "settings": settings_of(shards, number, run__dir=tmp_path / str(number))}
        for number in workers
    ]
    finished = run_several(runs, tmp_path, count, **{MEMORY_CACHE_BYTES_VARIABLE: "0"})
    assert finished.code == 0, finished.err
    for number in workers:
        assert worst_difference(final_state(tmp_path / str(number)), reference[0]) <= TOLERANCE
        assert skipped_samples(tmp_path / str(number)) == reference[1]


def cluster_run(folder: Path, **settings: object) -> dict[str, Any]:
    """CGPGAN in small, on as many points as the shards have."""
    changes = {
        "latent__categories": "[4]",
        "method__prior_start_step": 2,
        "network__widths": "[8,8]",
        "training__batch": 16,
        "distributed__streams": 8,
        "training__steps": 12,
        "checkpoint__every_steps": 100,
        "data__shuffle_window_images": 512,
        **settings,
    }
    return {
        "method": "cgpgan",
        "preset": "clusters",
        "cluster_points": 2 * CLUSTER_SHARD_POINTS,
        "settings": {"run__dir": folder, **changes},
    }


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards with the very points, in the very order, of data.name=clusters."""
    out = tmp_path_factory.mktemp("points") / "clusters"
    listing = list_source("clusters", None, SourceOptions(count=2 * CLUSTER_SHARD_POINTS, test_count=20))
    build_dataset(
        "clusters", listing, out, ImageOptions(), BuildOptions(workers=0, shard_bytes=CLUSTER_SHARD_POINTS * 2048)
    )
    assert ShardedDataset.open(out / "train").shard_counts.tolist() == [CLUSTER_SHARD_POINTS] * 2
    return out


def test_points_from_shards_train_what_the_same_points_of_memory_do(points: Path, few: Path, tmp_path: Path) -> None:
    """One and two processes, without and with workers, decoded anew or remembered, and resumed; and streaming.

    The same processes train on images too, of which there is one more than the batch.
    """
    sharded = {"data__name": "shards", "data__path": points}
    anew, remembered = {MEMORY_CACHE_BYTES_VARIABLE: "0"}, {MEMORY_CACHE_BYTES_VARIABLE: str(2**20)}
    alone = [
        cluster_run(tmp_path / "memory"),
        {**cluster_run(tmp_path / "1x0", **sharded), "environment": anew},
        {**cluster_run(tmp_path / "1x0r", **sharded), "environment": remembered},
        cluster_run(tmp_path / "moved", **sharded, training__steps=5),
        cluster_run(tmp_path / "seed", **sharded, run__seed=7),
        cluster_run(tmp_path / "streamed-1", **sharded, data__mode="streaming"),
        few_run(tmp_path / "few-1", few, 0),
    ]
    together = [
        {**cluster_run(tmp_path / "2x2", **sharded, data__workers=2), "environment": anew},
        cluster_run(tmp_path / "moved", **sharded, data__workers=1),
        cluster_run(tmp_path / "streamed-2", **sharded, data__mode="streaming", data__workers=2),
        few_run(tmp_path / "few-2", few, 1),
    ]
    for count, runs in ((1, alone), (2, together)):
        finished = run_several(runs, tmp_path, count)
        assert finished.code == 0, finished.err
    memory = final_state(tmp_path / "memory")
    for name in ("1x0", "1x0r", "2x2", "moved"):
        assert worst_difference(final_state(tmp_path / name), memory) <= TOLERANCE, name
    assert worst_difference(final_state(tmp_path / "seed"), memory) > 1e-3
    assert worst_difference(*(final_state(tmp_path / f"few-{count}") for count in (1, 2))) <= TOLERANCE
    streamed = [final_state(tmp_path / f"streamed-{count}") for count in (1, 2)]
    assert worst_difference(*streamed) <= TOLERANCE
    assert worst_difference(streamed[0], memory) > 1e-5


def test_without_flips_the_comparison_fails(
    reference: tuple[dict[str, Tensor], list[int]], shards: Path, tmp_path: Path
) -> None:
    finished = run(tmp_path, shards, 1, 0, data__horizontal_flip="false")
    assert finished.code == 0, finished.err
    assert worst_difference(final_state(tmp_path), reference[0]) > 1e-5


def test_too_many_errors_end_all_processes_with_the_last_checkpoint_whole(
    reference: tuple[dict[str, Tensor], list[int]], shards: Path, tmp_path: Path
) -> None:
    stopped = run(tmp_path, shards, 2, 0, data__max_errors=0, checkpoint__every_steps=1)
    assert stopped.code != 0
    assert stopped.err.count("error: 1 sample cannot be read, more than data.max_errors=0: fix the data") == 1
    assert "lost contact" not in stopped.err
    assert "Traceback (most recent call last)" not in stopped.err.split("error: 1 sample")[0]
    finished = run(tmp_path, shards, 1, 0)
    assert finished.code == 0, finished.err
    assert worst_difference(final_state(tmp_path), reference[0]) <= TOLERANCE


def damaged_kinds() -> dict[int, bytes]:
    """By the number of the sample they replace: a decompression bomb, a corrupt JPEG, a flipped byte of a PNG."""
    random = np.random.default_rng(1)
    image = Image.fromarray(random.integers(0, 256, (8, 8), np.uint8))
    files = {kind: io.BytesIO() for kind in ("JPEG", "PNG")}
    for kind, file in files.items():
        image.save(file, kind)
    jpeg, png = files["JPEG"].getvalue(), bytearray(files["PNG"].getvalue())
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    bomb = bytes(png[:12]) + header + struct.pack(">I", zlib.crc32(header)) + bytes(png[33:])
    bomb = bomb[:8] + struct.pack(">I", 13) + bomb[12:]
    png[len(png) // 2] ^= 1
    return {5: bomb, 23: jpeg[: len(jpeg) // 2], 48: bytes(png)}


@pytest.fixture(scope="module")
def hostile(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images, three of them damaged in other ways, none as before."""
    whole = ShardedDataset.open(shards)
    read = (whole.read(shard, n) for shard, count in enumerate(whole.shard_counts.tolist()) for n in range(count))
    samples = [Sample(*sample) for sample in read]
    samples[DAMAGED] = samples[DAMAGED - 1]
    for number, content in damaged_kinds().items():
        samples[number] = Sample(content, "jpg" if content.startswith(b"\xff\xd8") else "png", 1)
    out = tmp_path_factory.mktemp("hostile") / "data"
    write_shards(samples, out, "noise", (1, 8, 8), [str(i) for i in range(10)], "CC0", shard_bytes=36_000)
    return out


def test_a_bomb_a_corrupt_jpeg_and_a_flipped_byte_are_skipped_by_name_and_counted(
    hostile: Path, tmp_path: Path
) -> None:
    finished = run(tmp_path, hostile, 1, 0)
    assert finished.code == 0, finished.err
    named = [line for line in finished.err.splitlines() if "skipped: " in line]
    assert len(named) == len(damaged_kinds()) == 3
    assert all(".tar member " in line for line in named)
    assert sum("50000x50000" in line or "bomb" in line for line in named) == 1
    assert skipped_samples(tmp_path)[-1] == 3


def test_above_the_most_errors_the_recipe_itself_ends_with_status_2(hostile: Path, tmp_path: Path) -> None:
    stopped = run(tmp_path, hostile, 1, 0, data__max_errors=2)
    assert stopped.code == 2
    assert stopped.err.count("error: 3 samples cannot be read, more than data.max_errors=2: fix the data") == 1
    assert f"latentscale shards verify {hostile} lists what is broken" in stopped.err


@pytest.mark.parametrize("number", damaged_kinds())
def test_each_kind_of_damage_is_named_by_shard_and_member(hostile: Path, number: int) -> None:
    """What data.on_error=fail ends a run with, as below."""
    dataset = ShardedDataset.open(hostile)
    ends = np.cumsum(dataset.shard_counts)
    shard = int(np.searchsorted(ends, number, side="right"))
    member = number - int(ends[shard] - dataset.shard_counts[shard])
    with pytest.raises(UserError, match=rf"shard-{shard:06d}\.tar member {member} is ") as refused:
        decode(dataset.read(shard, member)[0], dataset.shape, dataset.location(shard, member))
    assert "\n" not in str(refused.value)


def test_unless_told_otherwise_a_damaged_sample_ends_the_run_by_name(shards: Path, tmp_path: Path) -> None:
    stopped = run(tmp_path, shards, 1, 0, data__on_error="fail")
    assert stopped.code == 2
    (line,) = [line for line in stopped.err.splitlines() if line.startswith("error: ")]
    assert ".tar member " in line
    assert "is not a readable image" in line
