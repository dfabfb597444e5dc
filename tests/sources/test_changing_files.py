"""A file of many images that is replaced while it is read: the build ends, and is not complete."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import image_bytes, mnist, pixels, tar

from latentscale.building.build_dataset import Built, build_dataset
from latentscale.building.build_options import BuildOptions, ImageOptions
from latentscale.errors import UserError
from latentscale.sources.registry import list_source
from latentscale.sources.source_options import SourceOptions


def write_tar(path: Path, first: int) -> Path:
    return tar(path, {f"{n % 2}/{n:02d}.png": image_bytes(first + n) for n in range(6)})


def write_zip(path: Path, first: int) -> Path:
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        for n in range(6):
            archive.writestr(f"{n % 2}/{n:02d}.png", image_bytes(first + n))
    return path


def write_npz(path: Path, first: int) -> Path:
    np.savez(path, images=np.full((6, 8, 8, 3), first, np.uint8), labels=np.arange(6) % 2)
    return path


def write_parquet(path: Path, first: int) -> Path:
    pq.write_table(pa.table({"image": [image_bytes(first + n) for n in range(6)], "label": [0, 1] * 3}), path)
    return path


def write_idx(path: Path, first: int) -> Path:
    mnist(path, train=20 + first, test=20)
    return path / "train-images-idx3-ubyte.gz"


KINDS: dict[str, Callable[[Path, int], Path]] = {
    "tar": write_tar,
    "zip": write_zip,
    "npz": write_npz,
    "parquet": write_parquet,
    "idx": write_idx,
}


def build(kind: str, path: Path, out: Path, then: Callable[[], Any], **options: Any) -> Built:
    """Build, and do something else when the first image is about to be read."""
    listing = list_source(kind, path, SourceOptions())
    calls = iter([then])

    def report(what: str, done: int, total: int) -> None:
        next(calls, lambda: None)()

    return build_dataset(kind, listing, out, ImageOptions(), BuildOptions(workers=0, **options), report)


@pytest.mark.parametrize("on_error", ["fail", "skip"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_replaced_ends_the_build(kind: str, on_error: str, tmp_path: Path) -> None:
    path, out = tmp_path / f"data.{kind}", tmp_path / "out"
    file = KINDS[kind](path, 0)

    def replace() -> None:
        KINDS[kind](path, 50)
        os.utime(file, ns=(10**18, 10**18))

    with pytest.raises(UserError, match=rf"data\.{kind}.* changed while .* was built from it.* again with --restart"):
        build(kind, path, out, replace, on_error=on_error, max_errors=100)
    assert not out.exists()
    with pytest.raises(UserError, match=r"have changed since the unfinished build .* with --restart"):
        build(kind, path, out, lambda: None)
    assert build(kind, path, out, lambda: None, restart=True).counts["train"] >= 6
    other = tmp_path / f"other.{kind}"
    KINDS[kind](other, 50)
    build(kind, other, tmp_path / "expected", lambda: None)
    # not what the file held when this process first read it
    assert np.array_equal(pixels(out / "train"), pixels(tmp_path / "expected/train"))


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_file_that_vanishes_ends_the_build(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"data.{kind}"
    KINDS[kind](path, 0)
    away = path.with_suffix(".away")
    with pytest.raises(UserError, match=rf"data\.{kind} cannot be read any more \(No such file .*: bring it back"):
        build(kind, path, tmp_path / "out", lambda: path.rename(away), on_error="skip", max_errors=100)
    away.rename(path)
    assert build(kind, path, tmp_path / "out", lambda: None, restart=True).counts == {"train": 6}


@pytest.mark.parametrize("order", "CF")
def test_an_array_that_is_cut_off_ends_the_build_and_not_the_process(order: Any, tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    np.save(path, np.asarray(images, order=order))
    for on_error in ("fail", "skip"):
        whole = path.read_bytes()
        with pytest.raises(UserError, match=r"images\.npy changed while .* was built from it"):
            build("npz", path, tmp_path / on_error, lambda: os.truncate(path, 5000), on_error=on_error, max_errors=100)
        assert not (tmp_path / on_error).exists()
        path.write_bytes(whole)
    build("npz", path, tmp_path / "whole", lambda: None)
    assert np.array_equal(pixels(tmp_path / "whole/train"), images.transpose(0, 3, 1, 2))


def test_a_file_that_grows_behind_what_is_read_ends_the_build(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "data.tar", 0)

    def grow() -> None:
        with path.open("ab") as stream:
            stream.write(bytes(512))

    with pytest.raises(UserError, match=r"data\.tar changed while"):
        build("tar", path, tmp_path / "out", grow)
