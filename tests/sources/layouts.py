"""Published layouts, synthesised small: each image's colour tells which one it is."""

import csv
import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from latentscale.building.build_dataset import Built, build_dataset
from latentscale.building.build_options import BuildOptions, ImageOptions
from latentscale.decoding.sample_arrays import decode
from latentscale.shards.sample import Sample
from latentscale.shards.sequential_file import SequentialFile
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.shards.tar_samples import read_samples
from latentscale.sources.registry import list_source
from latentscale.sources.source_options import SourceOptions
from launching import ROOT

SHARED = Path(os.environ.get("LATENTSCALE_SHARED_DATA", ROOT.parent / "shared" / "data"))


def colour(number: int) -> tuple[int, int, int]:
    """A colour that no other number below 2,000 has, and that JPEG keeps apart from its neighbours'."""
    return number % 13 * 16 + 30, number // 13 % 13 * 16 + 30, number // 169 * 20 + 20


def image_bytes(number: int, size: tuple[int, int] = (8, 8), kind: str = "PNG", **settings: Any) -> bytes:
    """A file of one colour; ``size`` is (width, height)."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour(number)).save(buffer, format=kind, **settings)
    return buffer.getvalue()


def noise(number: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    """An image whose every pixel matters."""
    generator = np.random.Generator(np.random.Philox(number))
    return Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def fill(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def afhq(root: Path, folders: Iterable[str] = ("train", "val"), kind: str = "JPEG", per_class: int = 3) -> Path:
    """Three classes; cats are first."""
    suffix = {"JPEG": "jpg", "PNG": "png"}[kind]
    number = 0
    for folder in folders:
        for animal in ("cat", "dog", "wild"):
            for _ in range(per_class):
                fill(root, {f"{folder}/{animal}/flickr_{animal}_{number:06d}.{suffix}": image_bytes(number, kind=kind)})
                number += 1
    return root


CELEBA_ATTRIBUTES = ("Bald", "Bangs", "Male", "Smiling")


def celeba_values(number: int) -> list[int]:
    """The attributes of image ``number``, as 1 and −1."""
    return [1 if number >> bit & 1 else -1 for bit in range(len(CELEBA_ATTRIBUTES))]


def celeba(root: Path, count: int = 16, as_csv: bool = False) -> Path:
    """Images 000001.jpg on; every fifth is of the test partition, every fourth of the others of validation."""
    names = [f"{number:06d}.jpg" for number in range(1, count + 1)]
    partitions = ["2" if n % 5 == 0 else "1" if n % 4 == 0 else "0" for n in range(1, count + 1)]
    fill(root, {f"img_align_celeba/{name}": image_bytes(n, (18, 22), "JPEG") for n, name in enumerate(names, 1)})
    rows = [[name, *map(str, celeba_values(n))] for n, name in enumerate(names, 1)]
    if as_csv:
        for stem, title, content in (
            ("list_attr_celeba", ["image_id", *CELEBA_ATTRIBUTES], rows),
            ("list_eval_partition", ["image_id", "partition"], list(zip(names, partitions, strict=True))),
        ):
            with (root / f"{stem}.csv").open("w", newline="") as stream:
                csv.writer(stream).writerows([title, *content])
    else:
        lines = [str(count), " ".join(CELEBA_ATTRIBUTES), *("  ".join(row) for row in rows)]
        fill(root, {"Anno/list_attr_celeba.txt": "\n".join(lines).encode()})
        pairs = [f"{name} {number}" for name, number in zip(names, partitions, strict=True)]
        fill(root, {"Eval/list_eval_partition.txt": "\n".join(pairs).encode()})
    return root


def idx_bytes(array: np.ndarray) -> bytes:
    """A uint8 array as an idx file."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def digit_arrays(count: int, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images ``[count, 28, 28]`` of one grey value each, with a corner that shows transposition, and labels."""
    numbers = np.arange(first, first + count)
    images = np.broadcast_to((numbers % 200 + 20).astype(np.uint8)[:, None, None], (count, 28, 28)).copy()
    images[:, 0, -1] = 255
    return images, (numbers % 10).astype(np.uint8)


def mnist(root: Path, train: int = 40, test: int = 20, gz: bool = True, prefix: str = "") -> Path:
    """The four files; EMNIST's names with a prefix such as ``emnist-letters-``."""
    suffix, pack = (".gz", gzip.compress) if gz else ("", bytes)
    for part, count, first in (("train", train, 0), ("test" if prefix else "t10k", test, train)):
        images, labels = digit_arrays(count, first)
        fill(root, {f"{prefix}{part}-images-idx3-ubyte{suffix}": pack(idx_bytes(images))})
        fill(root, {f"{prefix}{part}-labels-idx1-ubyte{suffix}": pack(idx_bytes(labels))})
    return root


def mnist_c(root: Path, corruptions: Iterable[str] = ("fog", "stripe"), count: int = 12) -> Path:
    """Corrupted images: the originals, brighter by the corruption's number."""
    images, _ = digit_arrays(count, 40)
    for number, name in enumerate(corruptions, 1):
        (root / name).mkdir(parents=True)
        np.save(root / name / "test_images.npy", (images // 2 + number)[..., None])
    return root


def tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """An uncompressed tar of files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members))
    return path


def tar_bytes(members: Mapping[str, bytes]) -> bytes:
    """The bytes of an uncompressed tar of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def built(source: str, path: Path | Sequence[Path] | None, out: Path, **options: Any) -> Built:
    """Build with the options of whichever kind they are, in this process unless ``workers`` says otherwise."""
    options = {"workers": 0, **options}
    kinds: list[Any] = [SourceOptions, ImageOptions, BuildOptions]
    given = [{k: v for k, v in options.items() if k in kind.__dataclass_fields__} for kind in kinds]
    assert {name for some in given for name in some} == options.keys(), options
    source_options, images, build_options = (kind(**some) for kind, some in zip(kinds, given, strict=True))
    return build_dataset(source, list_source(source, path, source_options), out, images, build_options)


def samples(folder: Path) -> list[Sample]:
    """All samples of a split's folder, in order."""
    shards = json.loads((folder / "dataset.json").read_text())["shards"]
    found: list[Sample] = []
    for shard in shards:
        with (folder / shard["file"]).open("rb") as stream:
            found += read_samples(SequentialFile(stream))
    return found


def pixels(folder: Path) -> np.ndarray:
    """The images of a split's folder, ``[N, C, H, W]``."""
    shape = ShardedDataset.open(folder).shape
    return np.stack([decode(sample.image, shape, "sample") for sample in samples(folder)])


def origins(folder: Path) -> list[str]:
    """The names that the samples come from, in order."""
    return [str((sample.origin or {})["name"]) for sample in samples(folder)]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
