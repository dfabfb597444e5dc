"""``latentscale shards``, as a user starts it."""

import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from layouts import afhq, built, fill, image_bytes, mnist
from PIL import Image

from latentscale.sources.layout_names import LAYOUTS
from latentscale.sources.registry import SOURCES
from launching import Processes

COMMAND = str(Path(sys.executable).with_name("latentscale"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AFHQ small, and a dataset made of it."""
    root = tmp_path_factory.mktemp("place")
    afhq(root / "afhq")
    built("afhq", root / "afhq", root / "pets", resolution=8)
    return root


def run(processes: Processes, place: Path, *arguments: str) -> tuple[int, str, str]:
    finished = processes.run([COMMAND, "shards", *arguments], place, COLUMNS="80")
    return finished.code, finished.out, finished.err


def test_build_verify_info_and_split(place: Path, processes: Processes) -> None:
    code, out, err = run(
        processes, place, "build", "afhq", "afhq", "--out", "new", "--resolution", "8", "--workers", "1"
    )
    assert (code, err) == (0, "")
    assert "note: found 18 images; the published afhq has 16130" in out
    assert "\ntrain: 9 images, labels cat, dog, wild\ntest: 9 images, labels cat, dog, wild\n" in out
    assert "new: 9 train, 9 test samples" in out

    code, out, _ = run(processes, place, "verify", "new", "--workers", "1")
    assert (code, out) == (0, "new: 18 samples in 2 shards of 2 datasets, all intact\n")

    code, out, err = run(processes, place, "info", "new", "--picture", "sheet.png")
    assert code == 0, err
    for text in ("afhq in new", "CC BY-NC 4.0", "Lanczos", "centre crop", "8x8 RGB", "picture: sheet.png"):
        assert text in out
    for animal in ("cat", "dog", "wild"):
        assert re.search(rf"{animal} +3 +3 +█+", out)
    with Image.open(place / "sheet.png") as picture:
        # two splits of three classes, each row magnified to 64 pixels
        assert picture.height > 6 * 64
        assert picture.width > 3 * 64

    code, out, _ = run(processes, place, "split", "new", "--out", "fold", "--folds", "3", "--fold", "1", "--stratified")
    assert (code, out) == (0, "fold: 12 train, 6 test samples\n")


def test_of_one_it_is_not_said_as_of_many(place: Path, processes: Processes) -> None:
    fill(place / "single", {"a.png": image_bytes(1), "README": b"text"})
    code, out, _ = run(
        processes, place, "build", "folder", "single", "--out", "one", "--resolution", "16", "--workers", "0"
    )
    assert code == 0
    assert out.startswith("note: ignored 1 file without an image's file name\nnote: 1 image: enlarged\n")
    assert "train: 1 image, no labels\none: 1 train sample, 0.0 MB\n" in out
    _, out, _ = run(processes, place, "verify", "one", "--workers", "0")
    assert out == "one: 1 sample in 1 shard of 1 dataset, all intact\n"


def test_a_users_mistakes_end_in_one_line(place: Path, processes: Processes) -> None:
    fill(place / "broken", {"a.png": image_bytes(1), "b.png": b"no image"})
    mnist(place / "mnist", train=2, test=2)
    fill(place / "deep", {"a.png": image_bytes(1), "labels.json": b"[" * 200_000})
    with zipfile.ZipFile(place / "damaged.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.png", image_bytes(1))
        archive.writestr("labels.csv", "file,label\na.png,x\n" * 50)
    damaged = bytearray((place / "damaged.zip").read_bytes())
    start = damaged.index(b"labels.csv") + len(b"labels.csv")
    damaged[start + 12 : start + 24] = bytes(12)
    (place / "damaged.zip").write_bytes(damaged)
    patches, starved = ("imagenet-patches", "whole", "--patch-size", "4"), "ran out of memory at whole.png: run"
    fill(place / "whole", {"whole.png": image_bytes(1)})
    fill(place / "cut", {"cut.jpg": image_bytes(1, (256, 256), "JPEG")[:-200]})
    for arguments, message in (
        (("build", "folder", "broken"), "--out is missing"),
        (("build", "cifar", "x", "--out", "o"), "source cifar does not exist"),
        (("build", "clusters", "--out", "o", "--resolution", "8"), "--resolution is not used by clusters"),
        (("build", "folder", "broken", "--out", "o", "--workers", "1"), "b.png is not an image"),
        (("build", "afhq", "afhq", "--out", "pets"), "pets already exists"),
        (("build", "folder", "whole", "--out", "whole/shards"), "--out whole/shards is inside the source folder whole"),
        (("build", "afhq", "afhq", "--out", "pets/../afhq"), "is inside the source folder afhq: choose an output"),
        (("build", "afhq", "afhq", "--out", "o", "--resolution", "60000"), "--resolution 60000 is not allowed"),
        (("build", "afhq", "afhq", "--out", "o", "--pad", "8193"), "it must be >= 0 and <= 8192 pixels"),
        (("build", *patches, "--out", "o", "--patch-size", "99999999"), "--patch-size 99999999 is not allowed"),
        # more numbers than any address space has room for
        *(
            (("build", *patches, "--out", "o", "--patches-per-image", f"{10**15}", "--workers", workers), starved)
            for workers in "01"
        ),
        (
            ("build", "idx", "mnist", "--out", "o", "--background", "mauvish"),
            "--background must be a colour such as white or #RRGGBB, got mauvish",
        ),
        (("build", "idx", "mnist", "--out", "o", "--background", "#12345678"), "#12345678 has an alpha channel"),
        (("build", "folder", "broken/a.png", "--out", "o"), "a.png is not a folder: name the one that holds the i"),
        (("build", "imagenet-patches", "--out", "o"), "PATH is missing: imagenet-patches is read from a folder"),
        (("build", "folder", "cut", "--out", "o", "--workers", "0"), "cut.jpg is not a readable image ("),
        (
            ("build", "idx", "mnist", "--out", "o", "--on-error", "panic"),
            "--on-error panic is not allowed: it must be one of fail, skip",
        ),
        (("build", "idx", "mnist", "--out", "s3://bucket/o"), "is a URL"),
        (
            ("build", "idx", "mnist", "--out", "o", "--shard-size", "inf"),
            "--shard-size inf is not allowed: it must be a finite",
        ),
        (
            ("build", "idx", "mnist", "--out", "o", "--shard-size", "0"),
            "--shard-size 0.0 is not allowed: it must be >=",
        ),
        (
            ("build", "idx", "mnist", "--out", "o", "--quality", "0"),
            "--quality 0 is not allowed: it must be >= 1 and <=",
        ),
        (
            ("build", "idx", "mnist", "--out", "o", "--channels", "2"),
            "--channels 2 is not allowed: it must be one of 0",
        ),
        (
            ("build", "idx", "mnist", "--out", "o", "--workers", "-1"),
            "--workers -1 is not allowed: it must be >= 0 and <= 1024 proc",
        ),
        (("build", "folder", "deep", "--out", "o"), "deep/labels.json is not a label file"),
        (("build", "zip", "damaged.zip", "--out", "o"), "damaged.zip member labels.csv is damaged in the archive"),
        (("split", "pets", "--out", "o"), "give one of --folds"),
        (("split", "pets", "--out", "o", "--folds", "3"), "go together"),
        (("split", "pets", "--out", "o", "--fractions", "0.5,0.5"), "--fractions 0.5,0.5 must be names and positive"),
        (("info", "pets", "--picture", "s3://bucket/sheet.png"), "--picture s3://bucket/sheet.png is a URL"),
        (("info", "pets", "--picture", "whole"), "whole is a folder"),
        (("info", "afhq"), "holds no dataset.json"),
        (("verify", "nowhere"), "holds no dataset.json"),
        (("verify", "ftp://127.0.0.1:9/x"), "ftp://127.0.0.1:9/x cannot be read"),
    ):
        code, out, err = run(processes, place, *arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert message in err
        assert "rebuild the dataset" not in err
        assert err.count("\n") == 1
        assert not (place / "o").exists()
        assert not (place / "whole/shards").exists()


def test_damage_that_verify_finds_ends_with_status_2(place: Path, processes: Processes) -> None:
    built("afhq", place / "afhq", place / "damaged", resolution=8)
    path = place / "damaged/train/shard-000000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    code, out, _ = run(processes, place, "verify", "damaged", "--workers", "0")
    assert code == 2
    assert "broken: damaged/train/shard-000000.tar has 3000 bytes instead of" in out
    assert "damaged: 2 faults in" in out


@pytest.mark.parametrize("file", ["shard-000000.tar", "shard-000000.index.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_named_and_not_waited_for(
    place: Path, processes: Processes, file: str
) -> None:
    shutil.rmtree(place / "piped", ignore_errors=True)
    shutil.copytree(place / "pets", place / "piped")
    (place / "piped/train" / file).unlink()
    os.mkfifo(place / "piped/train" / file)
    reason = f"piped/train/{file} cannot be read (it is a device, a pipe or a socket, not a file)"
    code, out, _ = run(processes, place, "verify", "piped", "--workers", "1")
    assert code == 2
    assert f"broken: {reason}\n" in out
    for arguments in (("info", "piped"), ("split", "piped", "--out", "o", "--fractions", "train=0.5,test=0.5")):
        code, out, err = run(processes, place, *arguments)
        assert (code, out) == (2, "")
        assert err == f"error: {reason}: copy it again or rebuild the dataset\n"


def test_help_teaches(place: Path, processes: Processes) -> None:
    code, out, _ = run(processes, place, "build", "--help")
    assert code == 0
    assert list(LAYOUTS) == list(SOURCES)
    for source, line in LAYOUTS.items():
        assert f"{source:<17}{line}" in out
    assert "latentscale shards build folder photos/ --out data/photos --resolution 64" in out
    for command, example in (
        ("verify", "latentscale shards verify data/photos"),
        ("info", "latentscale shards info data/photos --picture photos.png"),
        ("split", "--folds 7 --fold 0"),
    ):
        code, out, _ = run(processes, place, command, "--help")
        assert code == 0
        assert example in out


def test_names_are_shown_on_one_line_and_as_they_are(processes: Processes, tmp_path: Path) -> None:
    for label in ("a\nb", "[bold]c", "\x1b[31md"):
        for number in range(2):
            path = tmp_path / "images" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image_bytes(number, (8, 8)))
    code, out, err = run(processes, tmp_path, "build", "folder", "images", "--out", "[red]\nnew", "--workers", "0")
    assert code == 0, err
    summary = out.removeprefix("note: labels of 6 images from the folders' names\n")
    assert summary.startswith("train: 6 images, labels \\x1b[31md, [bold]c, a\\nb\n[red]\\nnew: 6 train samples")
    code, shown, err = run(processes, tmp_path, "info", "[red]\nnew", "--picture", "[red]\n.png")
    assert code == 0, err
    for text in ("images in [red]\\nnew", "\\x1b[31md ", "[bold]c ", "a\\nb ", "picture: [red]\\n.png"):
        assert text in shown
    code, shown, err = run(processes, tmp_path, "verify", "[red]\nnew", "--workers", "0")
    assert (code, shown) == (0, "[red]\\nnew: 6 samples in 1 shard of 1 dataset, all intact\n")
