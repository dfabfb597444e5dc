"""The bundled clusters: their law, and shards that hold the very data, in the very order, of runs from before them."""

import hashlib
import json
import multiprocessing
from functools import cache
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import ndtri
from scipy.stats import chisquare, kstest

from latentscale.data import first_use
from latentscale.data.datasets import available_splits, open_dataset
from latentscale.data.first_use import bundled_folder
from latentscale.data.memory_cache import MemoryCachedReader
from latentscale.data.order import Order
from latentscale.data.step_reader import Preprocessing
from latentscale.data.streaming import StreamingReader
from latentscale.errors import UserError
from latentscale.latents.draws import Purpose
from latentscale.shards.verifying import verify
from latentscale.sources.cluster_law import COUNTS, ClusterLaw, bundled_points
from launching import ROOT
from shared_cache import share_bundled

LAW = ClusterLaw()
MEANS = np.array(((-1.0, 1.0), (0.0, -2.0), (1.0, -1.0), (2.0, 1.0)))
SHARD_POINTS = 4096
SEED = 9


def words(seed: int, purpose: Purpose, step: int, stream: int, count: int) -> np.ndarray:
    """The raw Philox words of DESIGN's second idea."""
    key, counter = np.array([seed, purpose], dtype=np.uint64), np.array([0, 0, step, stream], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count)


@cache
def expected(split: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and clusters by scipy's quantile function, from seed 0 and the law as it is published."""
    draws = ((words(0, Purpose.SYNTHETIC_DATA, 0, split, 3 * count) >> np.uint64(12)) + 0.5) * 2.0**-52
    which, *noise = draws.reshape(3, count)
    clusters = (which[:, None] >= [0.1, 0.3, 0.6]).sum(axis=1)
    return (MEANS[clusters] + 0.3 * ndtri(np.stack(noise, axis=1))).astype(np.float32), clusters


@pytest.mark.parametrize(("split", "number", "count"), [("train", 0, 131_072), ("test", 1, 4_096)])
def test_the_points_are_those_of_the_law_and_the_seed(split: str, number: int, count: int) -> None:
    points, clusters = bundled_points(LAW, split)
    assert len(points) == COUNTS[split] == count
    want_points, want_clusters = expected(number, count)
    assert np.array_equal(clusters, want_clusters)
    np.testing.assert_allclose(points, want_points, rtol=0, atol=1e-6)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_points_have_the_law_that_is_stated(split: str) -> None:
    points, clusters = bundled_points(LAW, split)
    assert chisquare(np.bincount(clusters, minlength=4), np.array([0.1, 0.2, 0.3, 0.4]) * len(points)).pvalue > 1e-3
    standard = (points - MEANS[clusters]) / 0.3
    for axis in range(2):
        assert kstest(standard[:, axis], "norm").pvalue > 1e-3
    assert abs(np.corrcoef(standard.T)[0, 1]) < 5 / np.sqrt(len(points))


def test_splits_share_no_point() -> None:
    train, test = ({tuple(point) for point in bundled_points(LAW, split)[0].tolist()} for split in ("train", "test"))
    assert not train & test


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_shards_hold_every_point_and_are_named_by_the_values(split: str) -> None:
    dataset = open_dataset("clusters", None, split)
    points, clusters = bundled_points(LAW, split)
    assert (dataset.name, dataset.shape, dataset.count) == ("clusters", (2,), COUNTS[split])
    assert dataset.shard_counts.tolist() == [SHARD_POINTS] * (COUNTS[split] // SHARD_POINTS)
    assert dataset.fingerprint == hashlib.sha256(points.tobytes()).hexdigest()
    assert dataset.labels == ["(-1, 1)", "(0, -2)", "(1, -1)", "(2, 1)"]
    assert dataset.label_sizes == (4,)
    assert dataset.label_table().tolist() == [[0], [1], [2], [3]]
    assert dataset.independent
    stored = np.concatenate([dataset.shard_labels(shard) for shard in range(len(dataset.shard_counts))])
    assert np.array_equal(stored, clusters)
    order = Order(dataset.shard_counts, 1, SEED, COUNTS[split])
    shards, members = order.locate_run(0, 0, COUNTS[split])
    read, _ = MemoryCachedReader(dataset, order, range(1), COUNTS[split], (2,))(0)
    assert torch.equal(read, torch.from_numpy(points)[shards * SHARD_POINTS + members])


@pytest.mark.slow
def test_the_fingerprint_is_the_one_in_a_checkpoint_from_before() -> None:
    checkpoint = ROOT / "tests/compatibility/cgpgan-clusters/checkpoints/step-000000003/state.json"
    stored = json.loads(checkpoint.read_text())
    assert open_dataset("clusters").fingerprint in json.dumps(stored)


@pytest.mark.slow
def test_a_step_reads_the_points_that_the_seed_puts_there() -> None:
    streams, batch, window = 4, 5, 1000
    dataset = open_dataset("clusters")
    order = Order(dataset.shard_counts, streams, SEED, window)
    reader = MemoryCachedReader(dataset, order, range(1, 3), batch, (2,))
    points, clusters = bundled_points(LAW, "train")
    # by hand, as DESIGN lays down the order: steps about the end of the first epoch
    per_epoch = len(points) // streams
    for step in (7, per_epoch // batch, per_epoch // batch + 1):
        read, labels = reader(step)
        for row, (stream, i) in enumerate((stream, i) for stream in (1, 2) for i in range(batch)):
            epoch, within = divmod(step * batch + i, per_epoch)
            place, start = divmod(stream * len(points) // streams + within, window)[::-1]
            start *= window
            size = min(window, len(points) - start)
            place = start + int(np.argsort(words(SEED, Purpose.ORDER_WINDOW, epoch, start // window, size))[place])
            shard = int(np.argsort(words(SEED, Purpose.ORDER_SHARDS, epoch, 0, 32))[place // SHARD_POINTS])
            sample = shard * SHARD_POINTS + place % SHARD_POINTS
            assert read[row].tolist() == points[sample].tolist()
            assert labels[row] == clusters[sample]


@pytest.mark.slow
def test_clusters_can_be_streamed() -> None:
    streams, batch = 2, 8
    dataset = open_dataset("clusters", None, "test")
    order = Order(dataset.shard_counts, streams, SEED, 64)
    reader = StreamingReader(
        dataset,
        order,
        range(streams),
        batch,
        (2,),
        np.arange(streams * batch),
        Preprocessing(seed=SEED),
        seed=SEED,
        window_images=64,
        threads=1,
    )
    points, labels, skipped = reader.block(range(3))
    assert (points.shape, points.dtype, skipped) == ((3, streams * batch, 2), torch.float32, {})
    stored = {
        tuple(point): cluster for point, cluster in zip(*(a.tolist() for a in bundled_points(LAW, "test")), strict=True)
    }
    read = [tuple(point) for point in points.flatten(0, 1).tolist()]
    assert [stored[point] for point in read] == labels.flatten().tolist()
    # the streams are shuffled apart, and no stream repeats a point within a shard
    assert len(set(read[:batch])) == batch
    assert read[:batch] != read[batch : 2 * batch]


@pytest.mark.slow
def test_the_cache_verifies_and_a_forged_fingerprint_is_refused(tmp_path: Path) -> None:
    folder = bundled_folder("clusters", "test")
    assert verify(folder, 0).broken == []
    copy = tmp_path / "copy"
    copy.mkdir()
    description = json.loads((folder / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps({**description, "generated": {"fingerprint": "0"}}))
    with pytest.raises(UserError, match=r"generated must be an object with only a fingerprint"):
        open_dataset("shards", copy)


def open_together(together: Barrier) -> None:
    together.wait(30)
    assert open_dataset("clusters", None, "test").count == 4096


@pytest.mark.slow
def test_processes_that_ask_at_once_write_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTSCALE_CACHE", str(tmp_path))
    context = multiprocessing.get_context("fork")
    together = context.Barrier(3)
    processes = [context.Process(target=open_together, args=(together,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert [path.name for path in (tmp_path / "clusters-v1").iterdir()] == ["test"]


def write_in(cache: Path, log: Path, together: Barrier) -> None:
    writers = first_use._WRITE

    def write_logged(split: str, folder: Path) -> None:
        with log.open("a") as lines:
            lines.write(f"{split}\n")
        writers["clusters"](split, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTSCALE_CACHE", str(cache))
        patch.setattr(first_use, "_WRITE", {**writers, "clusters": write_logged})
        together.wait(30)
        assert open_dataset("clusters", None, "test").count == 4096


@pytest.mark.slow
def test_workers_of_one_test_run_write_the_bundled_data_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    together = context.Barrier(2)
    log = tmp_path / "written"
    processes = []
    for worker in ("gw0", "gw1"):
        (tmp_path / worker).mkdir()
        share_bundled(tmp_path / worker, tmp_path / "bundled")
        processes.append(context.Process(target=write_in, args=(tmp_path / worker, log, together)))
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert log.read_text() == "test\n"


def test_clusters_are_opened_by_name() -> None:
    assert available_splits("clusters") == ("train", "test")
    with pytest.raises(UserError, match=r"data\.path=here is not used by data\.name=clusters"):
        open_dataset("clusters", "here")
