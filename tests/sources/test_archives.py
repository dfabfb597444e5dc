"""Archives are read where they stand; whatever in them is not an honest image is named."""

import io
import os
import re
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from layouts import built, contents, image_bytes, origins, samples

from latentscale.building.build_dataset import build_dataset
from latentscale.building.build_options import BuildOptions, ImageOptions
from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.sources.registry import list_source
from latentscale.sources.source_options import SourceOptions


def tar(path: Path, members: dict[str, bytes | tarfile.TarInfo], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


GOOD = {"./cat/1.png": image_bytes(1), "./dog/2.png": image_bytes(2), "./README": b"text"}


@pytest.mark.slow
def test_a_tar_is_laid_out_like_a_folder(tmp_path):
    result = built("tar", tar(tmp_path / "pets.tar", GOOD), tmp_path / "out", workers=1, shuffle=False)
    assert result.counts == {"train": 2}
    assert origins(tmp_path / "out/train") == ["cat/1.png", "dog/2.png"]
    assert [sample.image for sample in samples(tmp_path / "out/train")] == [image_bytes(1), image_bytes(2)]
    assert [sample.label for sample in samples(tmp_path / "out/train")] == [0, 1]


BAD_MEMBERS = {
    "has .. in its name": ("../../evil.png", image_bytes(3)),
    "has an absolute path as its name": ("/tmp/evil.png", image_bytes(3)),
    "is a link": ("evil.png", special("evil.png", tarfile.SYMTYPE, "/etc/passwd")),
    "is a link ": ("hard.png", special("hard.png", tarfile.LNKTYPE, "cat/1.png")),
    "is a device or a pipe": ("evil.png", special("evil.png", tarfile.CHRTYPE)),
    "is a device or a pipe ": ("pipe.png", special("pipe.png", tarfile.FIFOTYPE)),
    "is not an image": ("cat/evil.png", b"text"),
}


@pytest.mark.parametrize("reason", BAD_MEMBERS)
def test_a_bad_member_of_a_tar_is_named(tmp_path, reason):
    name, member = BAD_MEMBERS[reason]
    archive = tar(tmp_path / "data.tar", {**GOOD, name: member})
    before = contents(tmp_path)
    with pytest.raises(UserError, match=f"{name} {reason.strip()}".replace(".", r"\.")) as refused:
        built("tar", archive, tmp_path / "out")
    assert "\n" not in str(refused.value)
    result = built("tar", archive, tmp_path / "out", on_error="skip")
    assert [problem.name for problem in result.skipped] == [name]
    assert result.counts == {"train": 2}
    # nothing was written outside --out
    after = contents(tmp_path)
    assert {name: content for name, content in after.items() if not name.startswith("out/")} == before
    with pytest.raises(UserError, match="more than --max-errors 0"):
        built("tar", archive, tmp_path / "new", on_error="skip", max_errors=0)


def test_a_tar_that_is_cut_off_or_damaged_is_named(tmp_path):
    files = {f"{number}.png": image_bytes(number, (64, 64), compress_level=0) for number in range(4)}
    whole = tar(tmp_path / "whole.tar", files).read_bytes()
    member = 512 + -(-len(files["0.png"]) // 512) * 512
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole[: 3 * member + 2000])
    # nobody knows what was behind the end, so that nothing may be skipped
    for on_error in ("fail", "skip"):
        with pytest.raises(UserError, match=r"cut\.tar member 3\.png is cut off \d+ bytes before its end"):
            built("tar", cut, tmp_path / "out", on_error=on_error)
    cut.write_bytes(whole[: 2 * member])
    for on_error in ("fail", "skip"):
        with pytest.raises(UserError, match=rf"cut\.tar is damaged or cut off at byte {2 * member}"):
            built("tar", cut, tmp_path / "out", on_error=on_error)
    flipped = bytearray(whole)
    flipped[2 * member] ^= 1
    cut.write_bytes(flipped)
    with pytest.raises(UserError, match=rf"cut\.tar is damaged or cut off at byte {2 * member}"):
        built("tar", cut, tmp_path / "out")
    cut.write_bytes(b"nonsense" * 100)
    with pytest.raises(UserError, match=r"cut\.tar cannot be read as a tar file"):
        built("tar", cut, tmp_path / "out")


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"GNU.sparse.map": "a,b"}, r"data\.tar has a damaged header at byte \d+, after member cat/1\.png"),
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, r"data\.tar has a damaged header .* cat/1\.png"),
        ({"GNU.sparse.size": "x"}, r"data\.tar has a damaged header at byte \d+, after member cat/1\.png"),
        ({"GNU.sparse.map": "0,0", "GNU.sparse.size": "0"}, r"evil\.png is a sparse file"),
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_headers_that_were_made_to_do_harm_are_named(tmp_path, headers, reason, first):
    evil = tarfile.TarInfo("evil.png")
    evil.pax_headers = headers
    members: dict[str, bytes | tarfile.TarInfo] = {"cat/1.png": image_bytes(1), "evil.png": evil}
    archive = tar(tmp_path / "data.tar", dict(sorted(members.items(), reverse=first)))
    with pytest.raises(UserError) as refused:
        built("tar", archive, tmp_path / "out")
    if not first:
        assert re.search(reason, str(refused.value))
    assert "data.tar" in str(refused.value) or "evil.png" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.tar"]


@pytest.mark.parametrize("source", ["folder", "zip", "tar"])
def test_names_that_lead_out_write_nothing_outside_the_new_folder(tmp_path, source):
    """Nor under other names: all that a build leaves is the dataset."""
    place = tmp_path / "above" / "here"
    place.mkdir(parents=True)
    evil = ("../../evil.png", "../evil.png", "/tmp/evil-of-a-test.png", "a/../../b.png", "..\\evil.png")
    if source == "tar":
        path = tar(place / "in.tar", {"1.png": image_bytes(1), **dict.fromkeys(evil, image_bytes(2))})
    elif source == "zip":
        path = zipped(place / "in.zip", {"1.png": image_bytes(1), **dict.fromkeys(evil, image_bytes(2))})
    else:
        path = place / "in"
        path.mkdir()
        for name in ("1.png", "x\\..\\evil.png", "a..png", "C:\\evil.png", "~evil.png", "$(touch evil).png"):
            (path / name).write_bytes(image_bytes(1))
    before = {name: content for name, content in contents(tmp_path).items() if "out/" not in name}
    result = built(source, path, place / "out", on_error="skip")
    assert result.counts == {"train": 6 if source == "folder" else 1}
    after = {name: content for name, content in contents(tmp_path).items() if "here/out/train/" not in name}
    assert after == before
    written = {name.rpartition("/")[2] for name in contents(place / "out")}
    assert written == {"dataset.json", "shard-000000.tar", "shard-000000.index.safetensors"}
    assert not Path("/tmp/evil-of-a-test.png").exists()


def test_a_compressed_tar_is_refused_with_its_remedy(tmp_path):
    archive = tar(tmp_path / "data.tar.gz", GOOD, "w:gz")
    with pytest.raises(UserError, match=r"is compressed.*decompress it first, such as with gunzip"):
        built("tar", archive, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil.png", "has .. in its name"),
        ("..\\evil.png", "has .. in its name"),
        ("/evil.png", "has an absolute path as its name"),
        ("C:\\evil.png", "has an absolute path as its name"),
    ],
)
def test_a_bad_name_in_a_zip_is_named(tmp_path, name, reason):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("1.png", image_bytes(1))
        archive.writestr(name, image_bytes(2))
    with pytest.raises(UserError) as refused:
        built("zip", tmp_path / "data.zip", tmp_path / "out")
    assert f"evil.png {reason}" in str(refused.value)
    assert built("zip", tmp_path / "data.zip", tmp_path / "out", on_error="skip").counts == {"train": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.zip", "out"]


def test_links_encryption_and_damage_in_a_zip_are_named(tmp_path):
    path = tmp_path / "data.zip"
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.png", image_bytes(1))
        archive.writestr(link, "/etc/passwd")
        archive.writestr("broken.png", image_bytes(2, (32, 32), compress_level=0))
        archive.writestr("secret.png", image_bytes(3))
    content = bytearray(path.read_bytes())
    content[content.index(b"broken.png") + 200] ^= 1
    entry = content.rindex(b"PK\x01\x02")
    assert struct.unpack_from("<H", content, entry + 8)[0] & 1 == 0
    content[entry + 8] |= 1
    path.write_bytes(content)
    result = built("zip", path, tmp_path / "out", on_error="skip")
    assert result.counts == {"train": 1}
    assert {problem.name: problem.reason.split(" (")[0] for problem in result.skipped} == {
        "link.png": "is a symbolic link",
        "secret.png": "is encrypted",
        "broken.png": "is damaged in the archive",
    }
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"data\.zip cannot be read as a zip file"):
        built("zip", path, tmp_path / "new")


def test_what_unpacks_to_too_much_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr("latentscale.sources.zips.MAX_FILE_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", image_bytes(1))
        archive.writestr("bomb.png", b"\0" * 100_000)
    with pytest.raises(UserError, match=r"bomb\.png is larger than \d+ bytes, the limit for one image"):
        built("zip", tmp_path / "data.zip", tmp_path / "out")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_resumed_build_knows_another_archive_with_members_of_the_same_names(tmp_path, kind):
    path = tmp_path / f"data.{kind}"

    def write(first: int) -> None:
        members = {f"{number:02d}.bmp": image_bytes(first + number, kind="BMP") for number in range(40)}
        if kind == "tar":
            tar(path, members)
        else:
            zipped(path, members)

    class Interruption(Exception):
        pass

    def stop(what: str, done: int, total: int) -> None:
        if what == "train" and done > 20:
            raise Interruption

    write(0)
    listing, images, options = (
        list_source(kind, path, SourceOptions()),
        ImageOptions(channels=3, resolution=8),
        {"shard_bytes": 4096},
    )
    with pytest.raises(Interruption):
        build_dataset(kind, listing, tmp_path / "out", images, BuildOptions(workers=0, **options), stop)
    log = (tmp_path / ".out.partial/progress.jsonl").read_text()
    assert log.count("\n") > 2
    # a zip file's directory has a sum of every member, so that only its own time is left to tell
    write(100 if kind == "tar" else 0)
    os.utime(path, ns=(10**9, 10**9))
    with pytest.raises(UserError, match="images of train have changed since the unfinished build"):
        built(kind, path, tmp_path / "out", channels=3, resolution=8, **options)


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("prefix", ["", "my/"], ids=["as in the archive", "as beside the file"])
def test_labels_in_the_single_top_folder_of_an_archive_are_read(tmp_path, kind, prefix):
    names = [f"{folder}/{number}.png" for folder in "ab" for number in range(2)]
    table = "\n".join(["file,who", *(f"{prefix}{name},{'xy'[number % 2]}" for number, name in enumerate(names))])
    members = {f"my/{name}": image_bytes(number) for number, name in enumerate(names)}
    members["my/labels.csv"] = table.encode()
    write = tar if kind == "tar" else zipped
    built(kind, write(tmp_path / "my", members), tmp_path / "out", shuffle=False)
    assert ShardedDataset.open(tmp_path / "out/train").labels == ["x", "y"]
    assert [sample.label for sample in samples(tmp_path / "out/train")] == [0, 1, 0, 1]
    # one that labels a part alone is not left alone in silence
    members["my/a/labels.json"] = members.pop("my/labels.csv")
    archive = write(tmp_path / "other", members)
    with pytest.raises(UserError, match=r"a label file, my/a/labels\.json, that is not in the images' top folder"):
        built(kind, archive, tmp_path / "new")
    built(kind, archive, tmp_path / "new", labels="folders")
    assert ShardedDataset.open(tmp_path / "new/train").labels == ["a", "b"]
