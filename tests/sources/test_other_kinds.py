"""Files of another kind than a source reads: compressed tars, archives of other kinds, and pickles."""

import bz2
import gzip
import lzma
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from layouts import built, fill, image_bytes, tar, tar_bytes

from latentscale.errors import UserError
from latentscale.sources.registry import list_source
from latentscale.sources.source_options import SourceOptions

COMPRESS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    ".tar.gz": (gzip.compress, "gunzip"),
    ".TGZ": (gzip.compress, "gunzip"),
    ".tar.bz2": (bz2.compress, "bunzip2"),
    ".txz": (lzma.compress, "unxz"),
    # only their first bytes count
    ".tar.zst": (lambda content: b"\x28\xb5\x2f\xfd" + content, "unzstd"),
    ".tar.lz4": (lambda content: b"\x04\x22\x4d\x18" + content, "unlz4"),
}


def pictures(first: int = 0) -> bytes:
    return tar_bytes({f"{n}.png": image_bytes(n) for n in range(first, first + 3)})


def refused(source: str, path: Any, message: str) -> str:
    with pytest.raises(UserError, match=message) as error:
        list_source(source, path, SourceOptions())
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("ending", COMPRESS)
def test_compressed_tars_are_named_with_a_command_that_decompresses_them(ending: str, tmp_path: Path) -> None:
    compress, program = COMPRESS[ending]
    content = compress(pictures())
    name = f"my pets{ending}"
    fill(
        tmp_path, {f"in/{name}": content, "called/a.tar": content, "mixed/0.tar": pictures(3), f"mixed/{name}": content}
    )
    one = refused("tar", tmp_path / "in" / name, rf"is compressed, .*: decompress it first, such as with {program} < ")
    refused("tar", tmp_path / "in", rf"in holds 1 compressed tar, .*: decompress first, such as {program} < ")
    refused("folder", tmp_path / "in", rf"in holds no images, but compressed tars: .* {program} < ")
    refused("tar", tmp_path / "called", rf"a\.tar is compressed, .* {program} < .* > .*/a-decompressed\.tar$")
    refused("tar", tmp_path / "mixed", r"holds 1 compressed tar, .*, or name the other files themselves")
    if program in ("gunzip", "bunzip2", "unxz"):
        subprocess.run(one.partition("such as with ")[2], shell=True, check=True, timeout=10)
        assert built("tar", tmp_path / "in/my pets.tar", tmp_path / "out").counts == {"train": 3}


def test_compressed_tars_within_a_tar_are_not_left_out_in_silence(tmp_path: Path) -> None:
    inner = {"n0.tar": pictures(), "n1.tar.gz": gzip.compress(pictures(3)), "._n2.tgz": b"macOS"}
    path = tar(tmp_path / "in.tar", inner)
    with pytest.raises(UserError, match=r"n1\.tar\.gz is a compressed tar within a tar, .* write the outer tar anew"):
        built("tar", path, tmp_path / "out")
    result = built("tar", path, tmp_path / "out", on_error="skip")
    assert (result.counts, [problem.name for problem in result.skipped]) == ({"train": 3}, ["n1.tar.gz"])


def test_other_archives_called_tars_are_named(tmp_path: Path) -> None:
    for start, kind, way in (
        (b"PK\3\4", "zip", "build it by the source zip"),
        (b"7z\xbc\xaf\x27\x1c", "7z", "unpack it first"),
        (b"Rar!\x1a\7", "rar", "unpack it first"),
    ):
        fill(tmp_path, {"a.tar": start + bytes(2000)})
        refused("tar", tmp_path / "a.tar", rf"a\.tar is no tar but a {kind} archive: {way}")
        tar(tmp_path / "b.tar", {"n0.tar": start + bytes(2000)})
        refused("tar", tmp_path / "b.tar", rf"b\.tar member n0\.tar is no tar but a {kind} archive: unpack it first")


class Opened(Exception):
    """Raised where a pickle of :class:`Trap` is opened."""


def _spring() -> None:
    raise Opened


class Trap:
    """Whoever unpickles one calls :func:`_spring`."""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return _spring, ()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["a.pkl", "a.npz", "a.npy", "data_batch_1", "a.tar"])
def test_a_pickle_is_named_and_never_opened(name: str, protocol: int, tmp_path: Path) -> None:
    fill(tmp_path, {f"in/{name}": pickle.dumps({b"data": Trap()}, protocol)})
    reason = r"a pickle, which is never opened .* by np\.savez"
    for source in ("npz", "folder", "tar", "zip"):
        refused(source, tmp_path / "in" / name, rf"{name} is {reason}")
    if name in ("a.pkl", "data_batch_1"):
        for source in ("npz", "folder", "tar"):
            refused(source, tmp_path / "in", rf"in holds no .*, but .*{name}, {reason}")


def test_what_torch_saved_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    torch.save({"images": torch.zeros(3, 8, 8, 3, dtype=torch.uint8)}, tmp_path / "in/train.pt")
    reason = r"a pickle, .* torch\.load\(FILE, weights_only=True\)"
    for source in ("npz", "folder", "tar", "zip"):
        refused(source, tmp_path / "in/train.pt", rf"train\.pt is {reason}")
    refused("folder", tmp_path / "in", rf"holds no images, but .*train\.pt, {reason}")


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_of_objects_are_named_and_never_unpickled(compressed: bool, tmp_path: Path) -> None:
    traps = np.array([Trap() for _ in range(4)], object)
    pixels = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8)
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "images.npz", images=traps, labels=np.arange(4))
    refused("npz", tmp_path / "images.npz", r"array images holds Python objects, .* never unpickled.*np\.stack\(list")
    save(tmp_path / "labels.npz", images=pixels, labels=traps)
    refused(
        "npz", tmp_path / "labels.npz", r"array labels holds Python objects, .*labels\.astype\(str\).*--labels none"
    )
    save(tmp_path / "other.npz", images=pixels, meta=traps)
    assert built("npz", tmp_path / "other.npz", tmp_path / "out").counts == {"train": 4}
    for name in ("images.npy", "pets.npy"):
        np.save(tmp_path / name, traps)
        refused("npz", tmp_path / name, rf"{name}.* holds Python objects, .*np\.stack\(list")
