"""Splits copy samples byte for byte: disjoint, complete, of the sizes that were asked for, the same every time."""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from layouts import afhq, built, contents, fill, mnist, noise, origins, samples
from safetensors.numpy import load_file, save

from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.shards.splitting import folds, fractions, split_dataset
from latentscale.shards.verifying import verify
from latentscale.storage.checksums import sha256_of_file
from launching import Processes

SHARD_BYTES = 64 * 1024


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """Seventy digits, 50 to train and 20 to test, ten classes alike."""
    root = tmp_path_factory.mktemp("digits")
    mnist(root / "mnist", train=50, test=20)
    built("idx", root / "mnist", root / "out", pad=32, shard_bytes=SHARD_BYTES)
    return root / "out"


def identity(folder: Path) -> list[tuple]:
    return [(s.image, s.label, tuple(s.origin.items())) for s in samples(folder)]


def everything(folder: Path) -> list[tuple]:
    return identity(folder / "train") + identity(folder / "test")


@pytest.mark.slow
@pytest.mark.parametrize("stratified", [False, True])
def test_seven_folds_test_every_sample_once(digits, tmp_path, stratified):
    tested = []
    for fold in range(7):
        out = tmp_path / str(fold)
        counts = split_dataset(digits, out, folds(7, fold, 3, stratified), SHARD_BYTES)
        assert counts == {"train": 60, "test": 10}
        assert sorted(everything(out)) == sorted(everything(digits))
        test = identity(out / "test")
        tested += test
        if stratified:
            assert Counter(label for _, label, _ in test) == Counter(range(10))
        assert not verify(out, 0).broken
    assert sorted(tested) == sorted(everything(digits))


def test_a_split_is_the_same_every_time_and_another_with_another_seed(digits, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        counts = split_dataset(digits, tmp_path / name, 15, SHARD_BYTES, seed=seed)
        assert counts == {"train": 55, "test": 15}
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert identity(tmp_path / "a/test") != identity(tmp_path / "c/test")
    # what is known of the data comes along
    whole, part = ShardedDataset.open(digits / "train"), ShardedDataset.open(tmp_path / "a/train")
    assert (part.name, part.labels, part.licence, part.shape) == (whole.name, whole.labels, whole.licence, whole.shape)


def test_fractions_give_each_split_its_share_of_every_label(digits, tmp_path):
    plan = fractions({"train": 0.8, "val": 0.1, "test": 0.1}, 0, stratified=True)
    assert split_dataset(digits, tmp_path / "out", plan, SHARD_BYTES) == {"train": 56, "val": 7, "test": 7}
    for split, least, most in (("train", 5, 6), ("val", 0, 1), ("test", 0, 1)):
        counts = ShardedDataset.open(tmp_path / f"out/{split}").label_counts()
        assert least <= counts.min() <= counts.max() <= most


def test_one_dataset_may_be_split_alone(digits, tmp_path):
    assert split_dataset(digits / "train", tmp_path / "out", 10, SHARD_BYTES) == {"train": 40, "test": 10}


def test_patches_of_one_image_stay_together(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(10):
        noise(number, (32, 32)).save(tmp_path / f"in/{number}.png")
    built("imagenet-patches", tmp_path / "in", tmp_path / "patches", patches="grid", patch_size=16)
    # three images, not three patches
    assert split_dataset(tmp_path / "patches", tmp_path / "out", 3, SHARD_BYTES) == {"train": 28, "test": 12}
    assert not set(origins(tmp_path / "out/train")) & set(origins(tmp_path / "out/test"))


def test_what_cannot_be_split_is_refused_and_leaves_nothing(digits, tmp_path):
    afhq(tmp_path / "in")
    built("afhq", tmp_path / "in", tmp_path / "other", resolution=32)
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed/train").symlink_to(digits / "train")
    (tmp_path / "mixed/test").symlink_to(tmp_path / "other/test")
    for path, plan, message in (
        (tmp_path / "mixed", 3, "differ in shape or labels"),
        (digits, 70, "--test 70 is not allowed: it must be positive and below 70, the number of samples"),
        (tmp_path, 3, r"holds no dataset\.json"),
        (digits, fractions({"train": 1.0, "test": 1e-6}, 0, False), "split test would be empty"),
    ):
        with pytest.raises(UserError, match=message):
            split_dataset(path, tmp_path / "out", plan, SHARD_BYTES)
        assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="--fold 7 does not exist in --folds 7"):
        folds(7, 7, 0, False)
    with pytest.raises(UserError, match="already exists"):
        split_dataset(digits, tmp_path / "other", 3, SHARD_BYTES)


def damage_image(train: Path) -> None:
    tar = train / "shard-000000.tar"
    content = bytearray(tar.read_bytes())
    content[5 * 512 + 30] ^= 1  # within the first image, after label and origin
    tar.write_bytes(content)


def damage_index(train: Path) -> None:
    path = train / "shard-000000.index.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")


def exchange_labels(train: Path) -> None:
    """An index that its checksum knows, but that belongs to other samples."""
    path = train / "shard-000000.index.safetensors"
    arrays = load_file(path)
    arrays["label"] = arrays["label"][::-1].copy()
    path.write_bytes(save(arrays))
    description = json.loads((train / "dataset.json").read_text())
    description["shards"][0]["index_sha256"] = sha256_of_file(path)
    (train / "dataset.json").write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            damage_image,
            r"train/shard-000000\.tar has the wrong SHA-256 \(not the one in dataset\.json\): run .*latentscale shards"
            r" verify .*copied/train, and copy again the files it names$",
        ),
        (damage_index, r"train/shard-000000\.index\.safetensors is damaged \(its SHA-256"),
        (exchange_labels, r"train/shard-000000\.tar member 1 has label 1, but its index has 9"),
    ],
)
def test_damage_is_not_copied_into_new_checksums(digits, tmp_path, damage, message):
    copied = shutil.copytree(digits, tmp_path / "copied")
    damage(copied / "train")
    with pytest.raises(UserError, match=message) as refused:
        split_dataset(copied, tmp_path / "out", 10, SHARD_BYTES)
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["copied"]


def test_the_same_images_in_train_and_test_are_taken_once(tmp_path):
    afhq(tmp_path / "in")
    assert built("afhq", tmp_path / "in", tmp_path / "all", split="all").counts == {"train": 18, "test": 18}
    assert split_dataset(tmp_path / "all", tmp_path / "out", 6, SHARD_BYTES) == {"train": 12, "test": 6}
    assert not set(origins(tmp_path / "out/train")) & set(origins(tmp_path / "out/test"))


def test_what_a_killed_split_leaves_is_used_by_the_next(digits, tmp_path, processes: Processes):
    started = f"""
import time
from pathlib import Path
from latentscale.shards.splitting import split_dataset

def report(what, done, total):
    print("copying", flush=True)
    time.sleep(60)

split_dataset(Path({str(digits)!r}), Path("out"), 10, {SHARD_BYTES}, report=report)
"""
    process = processes.start([sys.executable, "-c", started], tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "copying\n"
    with pytest.raises(UserError, match="out is being built by another process"):
        split_dataset(digits, tmp_path / "out", 10, SHARD_BYTES)
    process.kill()
    process.wait()
    assert [path.name for path in tmp_path.iterdir()] == [".out.partial"]
    split_dataset(digits, tmp_path / "out", 10, SHARD_BYTES)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_split_spares_an_unfinished_build(digits, tmp_path):
    log = tmp_path / ".out.partial/progress.jsonl"
    fill(tmp_path, {".out.partial/progress.jsonl": b'{"identity": {}}\n{"split": "train"}\n'})
    with pytest.raises(UserError, match="holds an unfinished build"):
        split_dataset(digits, tmp_path / "out", 10, SHARD_BYTES)
    assert log.is_file()


def test_the_current_folder_may_be_split_into(digits, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    split_dataset(digits, Path(), 10, SHARD_BYTES)
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["test", "train"]
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
