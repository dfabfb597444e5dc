"""Shards on disk: readable by others, read by position, complete or absent, and refused by name when damaged."""

import hashlib
import json
import pickle
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import webdataset
from numbered_images import LABELS, SHAPE, numbered_png, numbered_samples
from safetensors.numpy import load_file, save

from latentscale.errors import UserError
from latentscale.shards.dataset_writer import ShardsExist, write_shards
from latentscale.shards.sample import Sample
from latentscale.shards.sharded_dataset import ShardedDataset


@pytest.fixture
def copied(numbered, tmp_path) -> Path:
    """A dataset of 10 samples in shards of 4, 4 and 2, free to be damaged."""
    return Path(shutil.copytree(numbered(10, 4).path, tmp_path / "copied"))


def test_every_sample_is_read_back_by_position(numbered):
    dataset = numbered(10, 4)
    assert dataset.shard_counts.tolist() == [4, 4, 2]
    assert (dataset.count, dataset.shape, dataset.labels) == (10, SHAPE, LABELS)
    assert (dataset.name, dataset.licence) == ("numbered", "CC0")
    for number in reversed(range(10)):
        image, extension, label = dataset.read(*divmod(number, 4))
        assert (image, extension, label) == (numbered_png(number), "png", number % 3)
    assert dataset.label_counts().tolist() == [4, 3, 3]
    dataset.verify()


def test_other_webdataset_readers_find_the_same_samples(numbered):
    urls = [str(path) for path in sorted(numbered(10, 4).path.glob("*.tar"))]
    found = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["png"] for sample in found] == [numbered_png(number) for number in range(10)]
    assert [int(sample["cls"]) for sample in found] == [number % 3 for number in range(10)]


def test_the_index_holds_the_offsets_that_tarfile_finds(tmp_path):
    # Extensions before and after "cls" in the alphabet, sizes around the block size, with and without labels.
    samples = [
        Sample(b"\1" * 511, "bmp", 0),
        Sample(b"\2" * 512, "PNG", 1),
        Sample(b"\3" * 513, "jpeg", None),
        Sample(b"\4" * 5000, ".webp", 2),
        Sample(b"", "bmp", None),
    ]
    write_shards(samples, tmp_path / "mixed", "mixed", SHAPE, LABELS, "CC0")
    dataset = ShardedDataset.open(tmp_path / "mixed")
    read = [dataset.read(0, member) for member in range(5)]
    assert [image for image, _, _ in read] == [sample.image for sample in samples]
    assert [extension for _, extension, _ in read] == ["bmp", "png", "jpeg", "webp", "bmp"]
    assert [label for _, _, label in read] == [0, 1, -1, 2, -1]
    with tarfile.open(tmp_path / "mixed" / "shard-000000.tar") as tar:
        images = [member for member in tar if not member.name.endswith(".cls")]
        assert [member.offset_data for member in images] == dataset._load_index(0).offset.tolist()


def test_equal_samples_give_equal_bytes_and_other_samples_another_fingerprint(numbered, tmp_path):
    first = numbered(10, 4)
    write_shards(numbered_samples(10), tmp_path / "again", "numbered", SHAPE, LABELS, "CC0", 4 * 2048)
    for path in first.path.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    assert ShardedDataset.open(tmp_path / "again").fingerprint == first.fingerprint
    assert numbered(11, 4).fingerprint != first.fingerprint


@pytest.mark.slow
def test_threads_and_pickled_copies_read_the_same(numbered):
    dataset = pickle.loads(pickle.dumps(numbered(300, 2)))  # more shards than descriptors are kept open

    def read(number: int) -> bool:
        return dataset.read(*divmod(number, 2))[0] == numbered_png(number)

    everything = np.random.default_rng(0).permutation(300).tolist() * 3
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, everything))


def test_what_exists_is_not_overwritten_and_what_fails_leaves_nothing(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").touch()
    with pytest.raises(ShardsExist, match="already exists"):
        write_shards(numbered_samples(3), out, "n", SHAPE, LABELS, "CC0")

    def interrupted():
        yield from numbered_samples(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(interrupted(), tmp_path / "new", "n", SHAPE, LABELS, "CC0")
    with pytest.raises(UserError, match="no samples"):
        write_shards([], tmp_path / "new", "n", SHAPE, LABELS, "CC0")
    with pytest.raises(UserError, match="label 3, but there are only 3 label names"):
        write_shards([Sample(b"", "png", 3)], tmp_path / "new", "n", SHAPE, LABELS, "CC0")
    with pytest.raises(UserError, match=r"precious.*cannot be written"):
        write_shards(numbered_samples(3), out / "precious" / "new", "n", SHAPE, LABELS, "CC0")

    def unreadable():
        yield from numbered_samples(1)
        (tmp_path / "gone.png").read_bytes()

    with pytest.raises(UserError, match=r"gone\.png cannot be read"):
        write_shards(unreadable(), tmp_path / "new", "n", SHAPE, LABELS, "CC0")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["precious"]


def edited(folder: Path, **changes: object) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "dataset.json").unlink(), r"dataset\.json cannot be read"),
        (
            lambda folder: (folder / "dataset.json").write_text("{"),
            r"dataset\.json does not describe a latentscale dataset",
        ),
        (
            lambda folder: (folder / "dataset.json").write_text("[]"),
            r"dataset\.json does not describe a latentscale dataset",
        ),
        (
            lambda folder: edited(folder, format="other"),
            r"dataset\.json does not describe a latentscale dataset.*other",
        ),
        (lambda folder: edited(folder, version=3), r"dataset\.json has format version 3.*newer"),
        (lambda folder: edited(folder, shape=None), r"dataset\.json is incomplete"),
        (lambda folder: edited(folder, count=11), r"dataset\.json lists 11 samples.*have 10"),
        (lambda folder: (folder / "shard-000001.tar").unlink(), r"shard-000001\.tar cannot be read"),
        (
            lambda folder: truncated(folder / "shard-000002.tar"),
            r"shard-000002\.tar has \d+ bytes instead of",
        ),
        (lambda folder: (folder / "shard-000001.index.safetensors").unlink(), r"shard-000001\.index.*cannot"),
    ],
)
def test_what_is_missing_or_cut_off_is_named_on_opening(copied, damage, message):
    damage(copied)
    with pytest.raises(UserError, match=message) as refused:
        ShardedDataset.open(copied)
    assert "\n" not in str(refused.value)


def test_what_is_damaged_within_is_named_on_reading_or_verifying(copied):
    dataset = ShardedDataset.open(copied)
    shutil.copy(copied / "shard-000002.index.safetensors", copied / "shard-000001.index.safetensors")
    with pytest.raises(UserError, match=r"shard-000001\.index\.safetensors is damaged \(its SHA-256"):
        dataset.read(1, 0)
    (copied / "shard-000000.index.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"shard-000000\.index\.safetensors is damaged \(its SHA-256"):
        dataset.read(0, 0)
    (copied / "shard-000002.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"shard-000002\.tar member 1 is cut off after 0 of \d+ bytes"):
        dataset.read(2, 1)
    fresh = ShardedDataset(dataset.path, json.loads((copied / "dataset.json").read_text()))
    (copied / "shard-000002.tar").unlink()
    with pytest.raises(UserError, match=r"shard-000002\.tar member 1 cannot be read"):
        fresh.read(2, 1)


def test_a_flipped_bit_is_found_by_verify(copied):
    path = copied / "shard-000001.tar"
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"shard-000001\.tar is damaged"):
        ShardedDataset.open(copied).verify()


@pytest.mark.parametrize("member", range(3))
def test_a_flipped_bit_of_a_sample_is_found_on_reading_wherever_it_is(copied, member):
    path = copied / "shard-000001.tar"
    whole = path.read_bytes()
    sample, _, _ = ShardedDataset.open(copied).read(1, member)
    start = whole.index(sample)
    for place in (0, 1, len(sample) // 2, len(sample) - 1):
        damaged = bytearray(whole)
        damaged[start + place] ^= 1
        path.write_bytes(damaged)
        dataset = ShardedDataset.open(copied)
        for read in (lambda: dataset.read(1, member), lambda: dataset.read_together([(0, 0), (1, member)])):  # noqa: B023
            with pytest.raises(UserError, match=rf"shard-000001\.tar member {member} is damaged \(its CRC-32"):
                read()
        others = {0, 1, 2} - {member}
        dataset.read_together([(1, other) for other in others])


def test_a_dataset_of_version_1_is_read_without_checksums_of_its_samples(copied):
    before = ShardedDataset.open(copied)
    expected = [before.read(1, member) for member in range(3)]
    arrays = load_file(copied / "shard-000001.index.safetensors")
    del arrays["crc32"]
    edited(copied, version=1)
    old = described_index(copied, save(arrays))
    assert [old.read(1, member) for member in range(3)] == expected
    assert [image for image, _ in old.read_together([(1, member) for member in range(3)])] == [e[0] for e in expected]
    old.verify()


def test_a_flipped_bit_of_an_index_is_found_on_reading(copied):
    path = copied / "shard-000001.index.safetensors"
    content = path.read_bytes()
    for place in range(len(content) - 60, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(UserError, match=r"shard-000001\.index\.safetensors is damaged \(its SHA-256") as refused:
            ShardedDataset.open(copied).read(1, 0)
        assert "\n" not in str(refused.value)
    path.write_bytes(content)
    ShardedDataset.open(copied).read(1, 0)


def described_index(folder: Path, content: bytes) -> ShardedDataset:
    """The dataset with another index of shard 1, as if it had been built so."""
    (folder / "shard-000001.index.safetensors").write_bytes(content)
    shards = json.loads((folder / "dataset.json").read_text())["shards"]
    shards[1]["index_sha256"] = hashlib.sha256(content).hexdigest()
    edited(folder, shards=shards)
    return ShardedDataset.open(folder)


@pytest.mark.parametrize(
    ("name", "value"), [("label", -2), ("label", 3), ("size", -1), ("offset", 10**6), ("extension", 1)]
)
def test_an_index_that_says_the_impossible_is_named(copied, name, value):
    arrays = load_file(copied / "shard-000001.index.safetensors")
    arrays[name][2] = value
    with pytest.raises(UserError, match=r"shard-000001\.index\.safetensors does not match shard-000001\.tar"):
        described_index(copied, save(arrays)).read(1, 0)


def test_an_index_of_another_shard_or_of_no_kind_is_named(copied):
    with pytest.raises(UserError, match=r"shard-000001\.index\.safetensors does not match shard-000001\.tar"):
        described_index(copied, (copied / "shard-000002.index.safetensors").read_bytes()).read(1, 0)
    with pytest.raises(UserError, match=r"shard-000001\.index\.safetensors cannot be read"):
        described_index(copied, b"nonsense").read(1, 0)
