"""``verify`` finds everything that is broken and names it; what is whole passes."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layouts import afhq, built
from safetensors.numpy import load_file, save_file

from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.shards.verifying import verify
from latentscale.storage.checksums import sha256_of_file

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


def hostile(kind: str, name: str, said: bool) -> Callable[[Path], None]:
    """Adds a member to the second shard; whoever meant it adapts checksum and size too."""

    def damage(folder: Path) -> None:
        info = tarfile.TarInfo(name)
        if kind in LINKS:
            info.type, info.linkname = LINKS[kind], "/etc/passwd"
        elif kind in SPARSE:
            info.pax_headers = SPARSE[kind]
        add_member(folder / "shard-000001.tar", info)
        if said:
            description = json.loads((folder / "dataset.json").read_text())
            tar = folder / "shard-000001.tar"
            description["shards"][1] |= {"sha256": sha256_of_file(tar), "bytes": tar.stat().st_size}
            (folder / "dataset.json").write_text(json.dumps(description))

    return damage


def add_member(tar: Path, info: tarfile.TarInfo, content: bytes = b"") -> None:
    """At the end of an archive, by tarfile in the format of pax."""
    info.size = len(content)
    with tarfile.open(tar, "a", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(content))


LINKS = {"link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE}

# headers of sparse files as GNU tar writes them, with nonsense for numbers
SPARSE = {
    "map": {"GNU.sparse.map": "a,b"},
    "major": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
    "size": {"GNU.sparse.size": "x"},
    "whole": {"GNU.sparse.map": "0,0", "GNU.sparse.size": "0"},
}


def undescribed(folder: Path) -> None:
    description = json.loads((folder / "dataset.json").read_text())
    description["shards"].pop()
    (folder / "dataset.json").write_text(json.dumps(description))


@pytest.mark.slow
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
            ["shard-000001.tar has the wrong SHA-256", "shard-000001.tar member 000000003.png is not a readable image"],
        ),
        (lambda f: flipped(f / "shard-000001.tar", 512), ["has the wrong SHA-256", "member 000000003.cls has label b"]),
        (lambda f: flipped(f / "shard-000001.tar", 0), ["has the wrong SHA-256", "is not a tar file"]),
        (
            lambda f: flipped(f / "shard-000001.index.safetensors", 0),
            ["index.safetensors has the wrong SHA-256", "index.safetensors is not an index"],
        ),
        (
            lambda f: rewritten(f, offset=(1, 7), label=(2, 0)),
            [
                "000000004.png differs in the index: offset 7",
                "000000005.png differs in the index: label",
            ],
        ),
        (lambda f: rewritten(f, extension=(0, 9)), ["000000003.png differs in the index: extension number 9"]),
        (
            undescribed,
            ["dataset.json lists 9 samples, but its shards have 6", "shard-000002.index.safetensors is not listed"],
        ),
        (lambda f: shutil.copy(f / "shard-000000.tar", f / "shard-000009.tar"), ["shard-000009.tar is not listed in"]),
        (
            hostile("file", "../evil.png", False),
            ["instead of", "000001.tar has a member '../evil.png' that has .. in its name, which leads out of"],
        ),
        (hostile("file", "../evil.png", True), ["000001.tar has a member '../evil.png' that has .. in its name"]),
        (hostile("file", "/evil.png", True), ["000001.tar has a member '/evil.png' that has an absolute path as its"]),
        (hostile("file", "a/b.png", True), ["000001.tar has a member 'a/b.png' that does not belong to a sample"]),
        (hostile("link", "000000006.png", False), ["instead of", "000001.tar has a member '000000006.png' that is a"]),
        *(
            (hostile(kind, "000000006.png", True), ["000001.tar has a member '000000006.png' that is a link"])
            for kind in LINKS
        ),
        *(
            (hostile(kind, "000000006.png", True), ["000001.tar has a damaged header at byte"])
            for kind in SPARSE
            if kind != "whole"
        ),
        (hostile("whole", "000000006.png", True), ["000001.tar has a member '000000006.png' that is a sparse file"]),
    ],
)
def test_damage_is_named_and_nothing_else(copied, damage, lines):
    damage(copied / "train")
    found = verify(copied, 0).broken
    for line in lines:
        assert any(line in broken for broken in found), found
    assert all("/train/" in broken and "\n" not in broken for broken in found)
    assert len(found) <= len(lines) + 1
    assert sorted(path.name for path in copied.parent.iterdir()) == ["copied"]  # nothing is unpacked


def test_a_damaged_header_is_named_by_the_member_before_it_however_it_is_damaged(copied):
    tar = copied / "train/shard-000001.tar"
    content = tar.read_bytes()
    for headers in SPARSE.values():
        tar.write_bytes(content)
        info = tarfile.TarInfo("000000006.png")
        info.pax_headers = headers
        add_member(tar, info)
        assert any("000000005.png" in line or "000000006.png" in line for line in verify(copied, 0).broken)
        tar.unlink()  # and where it is the first
        add_member(tar, info)
        found = verify(copied, 0).broken
        assert any("shard-000001.tar is not a tar file" in x or "is a sparse file" in x for x in found), found
        assert not any("\n" in line for line in found)


def test_labels_out_of_range_and_images_of_another_size_are_named(copied):
    path = copied / "train/dataset.json"
    description = json.loads(path.read_text())
    path.write_text(json.dumps(description | {"labels": ["cat"], "shape": [3, 8, 9]}))
    found = verify(copied, 0).broken
    assert sum("but the dataset has 1 label" in line for line in found) == 6
    assert sum("is 8x8 pixels (height x width), not 8x9" in line for line in found) == 9


def test_what_is_no_dataset_is_refused(tmp_path, copied):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match=r"holds no dataset\.json"):
            verify(path, 0)
    for content in ("{", '{"format": "other"}', '{"format": "latentscale-shards", "version": 1}'):
        (copied / "train/dataset.json").write_text(content)
        with pytest.raises(UserError, match=r"dataset\.json (does not describe|is incomplete)") as refused:
            verify(copied, 0)
        assert "\n" not in str(refused.value)


NO_COUNT, NO_LIST = (None, "x", -1, 0, 1.5, True, [], {}, 10**30), (None, "x", 1, {}, [None], [1.5])
NO_NAME, NO_SUM = (None, 1, [], "", "..", "../secret.tar", "a\\b"), (None, 1, "", "../secret", "A" * 64, "0" * 63)
HUGE = ([10**14], [2**63 - 1], [3, 10**7, 10**7], [1, 2**63 - 1, 1], [2**14, 2**14, 2])
WRONG = {
    "name": (None, 1, []),
    "licence": (None, 1, {}),
    "shape": (*NO_COUNT, [3, 8], [3, 8, 0], [3, 8, "8"], *HUGE),
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
            problem = rf"({key}.* (must be|exceeds|give) |shard 1 has an unknown key {key}\))"
            with pytest.raises(
                UserError, match=rf"train/dataset\.json is incomplete or damaged \({problem}"
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
