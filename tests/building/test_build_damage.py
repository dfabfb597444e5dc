"""What stands among images and is none, or no honest one: it is named, and ends a build or is left out as was asked."""

import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import afhq, built, fill, image_bytes, noise, origins, pixels
from PIL import Image

from latentscale.errors import UserError
from latentscale.parallel_map import ordered_map
from latentscale.shards.dataset_json import read_description
from latentscale.shards.verifying import verify
from latentscale.sources.source_options import MAX_SIDE
from latentscale.storage.local import LocalFolder


def damaged(root: Path) -> Path:
    """Three cats of which one is broken, and two dogs of which one is cut off."""
    afhq(root, ("train",))
    fill(root, {"train/cat/flickr_cat_000001.jpg": b"no image"})
    file = root / "train/dog/flickr_dog_000004.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    return root


def test_damage_stops_the_build_by_name_and_mending_goes_on(tmp_path):
    root = damaged(tmp_path / "in")
    with pytest.raises(
        UserError, match=r"flickr_(cat_000001|dog_000004)\.jpg is .*damaged.*--on-error skip"
    ) as refused:
        built("afhq", root, tmp_path / "out", shard_bytes=2048)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
    fill(root, {f"train/{n}": image_bytes(k, kind="JPEG") for n, k in (("cat/flickr_cat_000001.jpg", 1),)})
    fill(root, {"train/dog/flickr_dog_000004.jpg": image_bytes(4, kind="JPEG")})
    assert built("afhq", root, tmp_path / "out", shard_bytes=2048, restart=True).counts == {"train": 9}


def test_damage_may_be_left_out_and_is_listed(tmp_path):
    root = damaged(tmp_path / "in")
    result = built("afhq", root, tmp_path / "out", on_error="skip", workers=2)
    assert result.counts == {"train": 7}
    assert sorted(problem.name for problem in result.skipped) == [
        "train/cat/flickr_cat_000001.jpg",
        "train/dog/flickr_dog_000004.jpg",
    ]
    left_out = json.loads((tmp_path / "out/train/dataset.json").read_text())["left_out"]
    assert any("flickr_cat_000001.jpg is not an image" in line for line in left_out)
    assert "train/cat/flickr_cat_000001.jpg" not in origins(tmp_path / "out/train")
    with pytest.raises(UserError, match=r"2 images cannot be used, more than --max-errors 1 allows; .*cat_000001"):
        built("afhq", root, tmp_path / "new", on_error="skip", max_errors=1)


def test_links_out_of_the_folder_are_refused_unless_meant(tmp_path):
    outside = fill(tmp_path / "outside", {"secret.png": image_bytes(7), "more/8.png": image_bytes(8)})
    root = fill(tmp_path / "in", {"0.png": image_bytes(0)})
    (root / "inside.png").symlink_to("0.png")
    assert built("folder", root, tmp_path / "a").counts == {"train": 2}
    (root / "leak.png").symlink_to(outside / "secret.png")
    with pytest.raises(UserError, match=r"leak\.png is a symbolic link that leads out of the folder"):
        built("folder", root, tmp_path / "b")
    (root / "gone.png").symlink_to("nowhere.png")
    (root / "self.png").symlink_to("self.png")
    (root / "self").symlink_to("self")
    (root / "folder").symlink_to(outside / "more", target_is_directory=True)
    (root / "loop").symlink_to(root, target_is_directory=True)
    os.mkfifo(root / "pipe.png")
    result = built("folder", root, tmp_path / "b", on_error="skip")
    assert result.counts == {"train": 2}
    assert {problem.name: problem.reason.split(" (")[0] for problem in result.skipped} == {
        "folder": "is a symbolic link to a folder",
        "gone.png": "is a broken symbolic link",
        "leak.png": "is a symbolic link that leads out of the folder",
        "loop": "is a symbolic link to a folder",
        "pipe.png": "is a device, a pipe or a socket, not a regular file",
        "self": "cannot be read",
        "self.png": "cannot be read",
    }
    result = built("folder", root, tmp_path / "c", on_error="skip", follow_symlinks=True, labels="none")
    assert origins(tmp_path / "c/train") == ["0.png", "folder/8.png", "inside.png", "leak.png"]
    assert {problem.name for problem in result.skipped} == {"gone.png", "loop", "pipe.png", "self", "self.png"}


@pytest.mark.slow
def test_names_of_any_bytes_are_kept_and_shown_in_one_line(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    names = ["new\nline.png", "ünïcode ☃.png", "quote'\".png", os.fsdecode(b"bytes\xff\xfe.png"), "a.b.c.png"]
    for number, name in enumerate(names):
        (root / name).write_bytes(image_bytes(number))
    built("folder", root, tmp_path / "out", workers=1)
    assert sorted(origins(tmp_path / "out/train")) == sorted(names)
    assert not verify(tmp_path / "out", 0).broken
    (root / "new\nline.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"^new\\nline\.png is not an image") as refused:
        built("folder", root, tmp_path / "new", resolution=8)
    assert "\n" not in str(refused.value)


def starved(chunk: list[int]) -> None:
    raise MemoryError


@pytest.mark.slow
def test_want_of_memory_is_said_in_one_line():
    with pytest.raises(UserError, match="ran out of memory: run the command again with fewer --workers"):
        list(ordered_map(starved, iter([[1]]), 1))
    with pytest.raises(UserError, match=r"^ran out of memory: free some"):
        list(ordered_map(starved, iter([[1]]), 0))


def test_the_largest_images_that_may_be_written_may_be_read(tmp_path):
    built("folder", fill(tmp_path / "in", {"0.png": image_bytes(0)}), tmp_path / "out")
    file = tmp_path / "out/train/dataset.json"
    shape = [3, MAX_SIDE, MAX_SIDE]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"shape": shape}))
    assert read_description(LocalFolder(tmp_path / "out/train"))["shape"] == shape


def odd_images() -> dict[str, tuple[bytes, str]]:
    """Files that decoders stumble over, each with the words by which it is left out; empty if it is used."""
    image = noise(1, (16, 16))

    def saved(kind: str, picture: Image.Image = image, **options: Any) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        return buffer.getvalue()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 16, 16, 8, 3, 0, 0, 0)
    no_palette = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(17 * 16)))
    pages = saved("TIFF", save_all=True, append_images=[noise(2), noise(3, (16, 16))])
    avif = saved("AVIF")
    return {
        "pages.tif": (pages, ""),
        "frames.gif": (saved("GIF", save_all=True, append_images=[noise(4, (16, 16))]), ""),
        "frames.webp": (saved("WEBP", save_all=True, append_images=[noise(4, (16, 16))], lossless=True), ""),
        "frames.png": (saved("PNG", save_all=True, append_images=[noise(4, (16, 16))]), ""),
        "lab.tif": (saved("TIFF", Image.new("LAB", (16, 16))), "has pixels of mode LAB"),
        "float.tif": (saved("TIFF", Image.new("F", (16, 16))), "has pixels of mode F"),
        "palette.png": (no_palette + chunk(b"IEND", b""), "is damaged (Pillow cannot decode it)"),
        "cut.avif": (avif[: len(avif) // 2], "is not an image, or its first bytes are damaged"),
        "cut.tif": (pages[:300], "is "),
        "cut.jp2": (saved("JPEG2000")[:200], "is damaged"),
    }


def test_an_image_is_refused_by_name_whatever_its_decoder_raises(tmp_path: Path) -> None:
    images = odd_images()
    fill(tmp_path / "in", {name: content for name, (content, _) in images.items()})
    result = built("folder", tmp_path / "in", tmp_path / "out", on_error="skip")
    left_out = {problem.name: problem.reason for problem in result.skipped}
    assert left_out.keys() == {name for name, (_, reason) in images.items() if reason}
    for name, reason in left_out.items():
        assert reason.startswith(images[name][1])
    assert sorted(origins(tmp_path / "out/train")) == sorted(images.keys() - left_out.keys())
    # the first page, as it is
    place = origins(tmp_path / "out/train").index("pages.tif")
    np.testing.assert_array_equal(
        pixels(tmp_path / "out/train")[place], np.asarray(noise(1, (16, 16))).transpose(2, 0, 1)
    )
    assert not verify(tmp_path / "out", 0).broken
