"""``verify`` finds everything that is broken and names it; what is whole passes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from layouts import afhq, built
from safetensors.numpy import load_file, save_file

from latentscale.data.shard_index import sha256_of_file
from latentscale.data.shards import ShardedDataset
from latentscale.data.verifying import verify
from latentscale.errors import UserError

IMAGE_AT = 5 * 512  # after label and origin, each with its header, and the image's header


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Nine training images in three shards, nine test images in three."""
    root = tmp_path_factory.mktemp("whole")
    afhq(root / "in")
    built("afhq", root / "in", root / "out", shard_bytes=10 * 1024, format="png", resolution=8)
    assert len(list((root / "out/train").glob("*.tar"))) == 3
    return root / "out"


@pytest.fixture
def copied(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copied"))


def rewritten(folder: Path, **changes) -> None:
    """Change an index and its checksum, as somebody would who meant it."""
    path = folder / "shard-000001.index.safetensors"
    arrays = load_file(path)
    for name, (number, value) in changes.items():
        arrays[name][number] = value
    save_file(arrays, path)
    description = json.loads((folder / "dataset.json").read_text())
    description["shards"][1]["index_sha256"] = sha256_of_file(path)
    (folder / "dataset.json").write_text(json.dumps(description))


def flipped(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def undescribed(folder: Path) -> None:
    description = json.loads((folder / "dataset.json").read_text())
    description["shards"].pop()
    (folder / "dataset.json").write_text(json.dumps(description))


def test_what_is_whole_passes_with_any_number_of_processes(whole):
    for workers in (0, 2):
        verified = verify(whole, workers)
        assert (verified.datasets, verified.shards, verified.samples, verified.broken) == (2, 6, 18, [])
    assert verify(whole / "test", 0).samples == 9


@pytest.mark.parametrize(
    ("damage", "lines"),
    [
        (
            lambda f: cut(f / "shard-000001.tar", 4000),
            ["shard-000001.tar has 4000 bytes", "shard-000001.tar is cut off at byte"],
        ),
        (lambda f: cut(f / "shard-000001.tar", 5120), ["has 5120 bytes instead of", "damaged or cut off at byte 5120"]),
        (lambda f: (f / "shard-000001.tar").unlink(), ["shard-000001.tar cannot be read (No such file or directory)"]),
        (lambda f: (f / "shard-000001.index.safetensors").unlink(), ["shard-000001.index.safetensors cannot be read"]),
        (
            lambda f: flipped(f / "shard-000001.tar", IMAGE_AT + 50),
            ["shard-000001.tar has another SHA-256", "shard-000001.tar member 000000003.png is not a readable image"],
        ),
        (lambda f: flipped(f / "shard-000001.tar", 512), ["has another SHA-256", "member 000000003.cls is b"]),
        (lambda f: flipped(f / "shard-000001.tar", 0), ["has another SHA-256", "is no tar file"]),
        (
            lambda f: flipped(f / "shard-000001.index.safetensors", 0),
            ["index.safetensors has another SHA-256", "index.safetensors is no index"],
        ),
        (
            lambda f: rewritten(f, offset=(1, 7), label=(2, 0)),
            [
                "000000004.png stands otherwise in the index: offset 7",
                "000000005.png stands otherwise in the index: label",
            ],
        ),
        (lambda f: rewritten(f, extension=(0, 9)), ["000000003.png stands otherwise in the index: extension number 9"]),
        (undescribed, ["dataset.json says 9 samples, its shards have 6", "shard-000002.index.safetensors is no part"]),
        (lambda f: shutil.copy(f / "shard-000000.tar", f / "shard-000009.tar"), ["shard-000009.tar is no part of"]),
    ],
)
def test_damage_is_named_and_nothing_else(copied, damage, lines):
    damage(copied / "train")
    found = verify(copied, 0).broken
    for line in lines:
        assert any(line in broken for broken in found), found
    assert all("/train/" in broken and "\n" not in broken for broken in found)
    assert len(found) <= len(lines) + 1


def test_labels_out_of_range_and_images_of_another_size_are_named(copied):
    path = copied / "train/dataset.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps(description | {"labels": ["cat"], "shape": [3, 8, 9]}))
    found = verify(copied, 0).broken
    assert sum("but there are 1 labels" in line for line in found) == 6
    assert sum("is 8x8 pixels (height x width), not 8x9" in line for line in found) == 9


def test_what_is_no_dataset_is_refused(tmp_path, copied):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match=r"holds no dataset\.json"):
            verify(path, 0)
    for content in ("{", '{"format": "other"}', '{"format": "latentscale-shards", "version": 1}'):
        (copied / "train/dataset.json").write_text(content)
        with pytest.raises(UserError, match=r"dataset\.json is") as refused:
            verify(copied, 0)
        assert "\n" not in str(refused.value)


NO_COUNT, NO_LIST = (None, "x", -1, 0, 1.5, True, [], {}, 10**30), (None, "x", 1, {}, [None], [1.5])
NO_NAME, NO_SUM = (None, 1, [], "", "..", "../secret.tar", "a\\b"), (None, 1, "", "../secret", "A" * 64, "0" * 63)
WRONG = {
    "name": (None, 1, []),
    "licence": (None, 1, {}),
    "shape": (*NO_COUNT, [3, 8], [3, 8, 0], [3, 8, "8"]),
    "count": NO_COUNT,
    "labels": (*NO_LIST, [1]),
    "extensions": (*NO_LIST, [1], ["../png"]),
    "shards": (*NO_LIST, ["shard-000000.tar"]),
    "label_sizes": ("x", 3, [0], [2, 2], {"a": 1}),
    "transform": ("x", []),
    "left_out": ("x", [1]),
}
WRONG_OF_SHARD = {
    "file": NO_NAME,
    "index": NO_NAME,
    "count": NO_COUNT,
    "bytes": NO_COUNT,
    "sha256": NO_SUM,
    "index_sha256": NO_SUM,
    "mode": ("x",),
}


@pytest.mark.parametrize(("key", "of_shard"), [*((k, False) for k in WRONG), *((k, True) for k in WRONG_OF_SHARD)])
def test_a_value_of_another_kind_in_a_description_is_named(copied, key, of_shard):
    path = copied / "train/dataset.json"
    for value in (WRONG_OF_SHARD if of_shard else WRONG)[key]:
        description = json.loads((copied / "test/dataset.json").read_text())
        (description["shards"][1] if of_shard else description)[key] = value
        path.write_text(json.dumps(description))
        for read in (lambda: verify(copied, 0), lambda: ShardedDataset.open(copied / "train")):
            with pytest.raises(
                UserError, match=rf"train/dataset\.json is incomplete or damaged \({key}.* (is|make) "
            ) as refused:
                read()
            assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("key", "of_shard"), [("labels", False), ("shape", False), ("sha256", True), ("file", True)])
def test_what_a_description_lacks_is_named(copied, key, of_shard):
    path = copied / "train/dataset.json"
    description = json.loads(path.read_text())
    del (description["shards"][2] if of_shard else description)[key]
    path.write_text(json.dumps(description))
    with pytest.raises(UserError, match=rf"dataset\.json is incomplete or damaged \({key}.* is missing\)"):
        verify(copied, 0)


def test_the_index_of_a_built_dataset_is_readable_by_all(whole):
    # as any other file that this process writes
    plain = whole.parent / "plain"
    plain.touch()
    assert {path.stat().st_mode for path in whole.glob("*/*")} == {plain.stat().st_mode}
    assert np.all([load_file(path)["size"].min() > 0 for path in whole.glob("*/*.safetensors")])
