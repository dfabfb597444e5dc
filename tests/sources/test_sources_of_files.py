"""Tars, parquet and NumPy files: the same bytes with any number of processes, and after any interruption."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from layouts import built, contents, noise, tar, tar_bytes

from latentscale.building.build_dataset import build_dataset
from latentscale.building.build_options import BuildOptions, ImageOptions
from latentscale.errors import UserError
from latentscale.shards.verifying import verify
from latentscale.sources.registry import list_source
from latentscale.sources.source_options import SourceOptions

COUNT = 90
OPTIONS = {"resolution": 16, "shard_bytes": 12 * 1024}


def png(number: int) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    noise(number, (40, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def webdataset_tars(root: Path, first: int) -> Path:
    for part in range(3):
        members = {}
        for number in range(30 * part, 30 * part + 30):
            members |= {f"{number:03d}.png": png(first + number), f"{number:03d}.cls": b"%d" % (number // 30)}
        tar(root / f"train-{part}.tar", members)
    return root


def tar_of_tars(root: Path, first: int) -> Path:
    inner = {f"n{k}.tar": tar_bytes({f"{n:03d}.png": png(first + 30 * k + n) for n in range(30)}) for k in range(3)}
    return tar(root / "train.tar", inner)


def parquet_files(root: Path, first: int) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for part in range(2):
        numbers = range(45 * part, 45 * part + 45)
        table = pyarrow.table({"image": [png(first + n) for n in numbers], "label": [n // 30 for n in numbers]})
        parquet.write_table(table, root / f"train-{part:05d}-of-00002.parquet", row_group_size=20)
    return root


def arrays(root: Path, first: int) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for part in range(2):
        numbers = range(45 * part, 45 * part + 45)
        images = np.stack([np.asarray(noise(first + n, (40, 30))) for n in numbers])
        save = np.savez_compressed if part else np.savez
        save(root / f"train_{part}.npz", images=images, labels=np.array([n // 30 for n in numbers]))
    return root


MAKERS: dict[str, tuple[str, Callable[[Path, int], Path]]] = {
    "WebDataset's tars": ("tar", webdataset_tars),
    "a tar of tars": ("tar", tar_of_tars),
    "parquet": ("parquet", parquet_files),
    "npz": ("npz", arrays),
}


class Interruption(Exception):
    pass


def interrupted(source: str, path: Path, out: Path) -> None:
    """Build until some shards are there."""

    def report(what: str, done: int, total: int) -> None:
        if what == "train" and done > 60:
            raise Interruption

    listing = list_source(source, path, SourceOptions())
    options = BuildOptions(workers=0, shard_bytes=OPTIONS["shard_bytes"])
    with pytest.raises(Interruption):
        build_dataset(source, listing, out, ImageOptions(resolution=16), options, report)
    assert len((out.parent / f".{out.name}.partial/progress.jsonl").read_text().splitlines()) > 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
def test_the_bytes_depend_on_neither_processes_nor_interruptions(kind: str, tmp_path: Path) -> None:
    source, make = MAKERS[kind]
    path = make(tmp_path / "in", 0)
    before = contents(tmp_path)
    built(source, path, tmp_path / "a", workers=0, **OPTIONS)
    first = contents(tmp_path / "a")
    assert len([name for name in first if name.endswith(".tar")]) > 5
    built(source, path, tmp_path / "b", workers=2, **OPTIONS)
    assert contents(tmp_path / "b") == first
    interrupted(source, path, tmp_path / "c")
    assert built(source, path, tmp_path / "c", **OPTIONS).resumed_samples > 20
    assert contents(tmp_path / "c") == first
    assert not verify(tmp_path / "a", 0).broken
    written = {name: content for name, content in contents(tmp_path).items() if name[0] not in "abc"}
    assert written == before


@pytest.mark.parametrize("kind", MAKERS)
def test_an_unfinished_build_goes_on_with_no_other_files(kind: str, tmp_path: Path) -> None:
    source, make = MAKERS[kind]
    path = make(tmp_path / "in", 0)
    interrupted(source, path, tmp_path / "out")
    make(tmp_path / "in", 100)
    for file in (tmp_path / "in").iterdir():
        os.utime(file, ns=(10**9, 10**9))
    with pytest.raises(UserError, match=r"images of train have changed since the unfinished build.*--restart"):
        built(source, path, tmp_path / "out", **OPTIONS)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_new_dataset_is_outside_of_the_folder_that_is_searched(kind: str, tmp_path: Path) -> None:
    source, make = MAKERS[kind]
    make(tmp_path / "in", 0)
    with pytest.raises(UserError, match=r"--out .* is inside the source folder"):
        built(source, tmp_path / "in", tmp_path / "in/out", **OPTIONS)
