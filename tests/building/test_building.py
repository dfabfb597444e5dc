"""A build gives the same bytes however many processes did it and however often it was killed, or nothing at all."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from layouts import afhq, built, contents, fill, noise, samples

from latentscale.building.build_dataset import build_dataset
from latentscale.building.build_options import BuildOptions, ImageOptions
from latentscale.errors import UserError
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.shards.verifying import verify
from latentscale.sources.registry import list_source
from latentscale.sources.source_options import SourceOptions
from launching import Processes

COMMAND = str(Path(sys.executable).with_name("latentscale"))
SMALL_SHARDS = 12 * 1024


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Ninety photographs, in no class."""
    root = tmp_path_factory.mktemp("photos") / "photos"
    root.mkdir()
    for number in range(90):
        noise(number, (40, 30)).save(root / f"{number:03d}.png")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("source", ["folder", "imagenet-patches"])
def test_the_bytes_do_not_depend_on_the_number_of_processes(photos, tmp_path, source):
    options = {"patches_per_image": 3, "patch_size": 8} if source == "imagenet-patches" else {"resolution": 16}
    for workers in (0, 1, 3):
        built(source, photos, tmp_path / str(workers), workers=workers, shard_bytes=SMALL_SHARDS, **options)
    first = contents(tmp_path / "0")
    assert len([name for name in first if name.endswith(".tar")]) > 5
    assert contents(tmp_path / "1") == first
    assert contents(tmp_path / "3") == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "3"]


class Interruption(Exception):
    pass


def interrupted(photos: Path, out: Path, at_call: int, **options) -> bool:
    """Build until the report's call of that number; whether it was interrupted."""
    calls = 0

    def report(what: str, done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == at_call:
            raise Interruption

    listing = list_source(
        "imagenet-patches", photos, SourceOptions(patches="random", patch_size=8, patches_per_image=7)
    )
    build = BuildOptions(**{"shard_bytes": SMALL_SHARDS, "workers": 0, **options})
    try:
        build_dataset("imagenet-patches", listing, out, ImageOptions(), build, report)
    except Interruption:
        return True
    return False


@pytest.mark.slow
def test_an_interruption_at_any_chunk_changes_nothing(photos, tmp_path):
    assert not interrupted(photos, tmp_path / "whole", 0)
    # shards end within an image's patches
    whole = samples(tmp_path / "whole/train")
    counts = ShardedDataset.open(tmp_path / "whole/train").shard_counts
    assert any(whole[end - 1].origin["name"] == whole[end].origin["name"] for end in counts.cumsum()[:-1])
    resumed = []
    for at_call, workers in ((2, 2), (3, 0), (5, 1)):
        out = tmp_path / str(at_call)
        assert interrupted(photos, out, at_call, workers=workers)
        assert not out.exists()
        # a second interruption, soon after the first
        assert interrupted(photos, out, 2)
        log = tmp_path / f".{at_call}.partial/progress.jsonl"
        resumed.append(len(log.read_text().splitlines()))
        # a kill may cut the last line off
        with log.open("a") as stream:
            stream.write('{"split": "tra')
        assert not interrupted(photos, out, 0, workers=workers)
        assert contents(out) == contents(tmp_path / "whole")
    assert resumed[-1] > resumed[0] > 1
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_stopped_build_goes_on_and_ends_with_the_same_bytes(tmp_path, processes: Processes, how):
    root = tmp_path / "in"
    root.mkdir()
    # small to make here, long to build: the signal comes after the first shard and long before the last
    for number in range(300):
        noise(number, (24, 24)).save(root / f"{number:03d}.png")
    command = [
        COMMAND,
        "shards",
        "build",
        "folder",
        "in",
        "--resolution",
        "96",
        "--png-compression",
        "9",
        "--shard-size",
        "0.25",
        "--workers",
        "2",
    ]
    process = processes.start([*command, "--out", "out"], tmp_path)
    log = tmp_path / ".out.partial/progress.jsonl"
    until = time.monotonic() + 60
    while not log.exists() or len(log.read_bytes().splitlines()) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, how)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == (-how if how == signal.SIGKILL else 130)
    assert ("run the same command to continue" in out) == (how == signal.SIGINT)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    assert not (tmp_path / "out").exists()
    finished = processes.run([*command, "--out", "out"], tmp_path)
    assert finished.code == 0, finished.err
    assert "by an earlier run" in finished.out
    options = {"resolution": 96, "png_compression": 9, "shard_bytes": 2**18, "workers": 2}
    assert built("folder", root, tmp_path / "whole", name="in", **options).counts
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not verify(tmp_path / "out", 0).broken


@pytest.mark.slow
def test_another_source_or_options_are_not_mixed_with_an_unfinished_build(photos, tmp_path):
    out = tmp_path / "out"
    assert interrupted(photos, out, 4)
    options = {"patches": "random", "patch_size": 8, "patches_per_image": 7, "shard_bytes": SMALL_SHARDS}
    with pytest.raises(UserError, match=r"other options \(shard_bytes was 12288, now 24576\): .*--restart") as refused:
        built("imagenet-patches", photos, out, **(options | {"shard_bytes": 2 * SMALL_SHARDS}))
    assert "\n" not in str(refused.value)
    changed = fill(tmp_path / "photos", contents(photos))
    for path in changed.iterdir():
        # written at other times, these are other files
        os.utime(path, ns=(0, 0))
    with pytest.raises(UserError, match=r"images of train have changed since the unfinished build.*--restart"):
        built("imagenet-patches", changed, out, **options)
    built("imagenet-patches", changed, out, restart=True, **options)
    interrupted(photos, tmp_path / "whole", 0)
    assert contents(out) == contents(tmp_path / "whole")


def test_nothing_is_mixed_nor_lost_where_no_shard_was_finished(photos, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, size in enumerate(((8, 8), (8, 8), (16, 8))):
        noise(number, size).save(folder / f"{number}.png")
    with pytest.raises(UserError, match="resize them to one size with --resolution"):
        built("folder", folder, tmp_path / "out")
    # what the message says to do is no other build than the one that never began
    assert built("folder", folder, tmp_path / "out", resolution=8).counts == {"train": 3}


@pytest.mark.slow
def test_the_options_that_differ_are_named_one_by_one(photos, tmp_path):
    assert interrupted(photos, tmp_path / "out", 4)
    options = {"patches": "random", "patch_size": 8, "patches_per_image": 7, "shard_bytes": SMALL_SHARDS}
    with pytest.raises(UserError, match=r"\(images\.pad was 0, now 40; images\.quality was 95, now 80\)"):
        built("imagenet-patches", photos, tmp_path / "out", pad=40, quality=80, **options)


def test_the_current_folder_may_be_built_into(photos, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    built("folder", photos, Path(), resolution=8)
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["train"]
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_two_builds_do_not_write_the_same_folder(photos, tmp_path):
    def other(what: str, done: int, total: int) -> None:
        with pytest.raises(UserError, match="out is being built by another process"):
            built("folder", photos, tmp_path / "out", resolution=8)

    listing = list_source("folder", photos, SourceOptions())
    build_dataset(
        "folder", listing, tmp_path / "out", ImageOptions(resolution=8, channels=3), BuildOptions(workers=0), other
    )
    with pytest.raises(UserError, match="out already exists"):
        built("folder", photos, tmp_path / "out", resolution=8)


def test_what_was_left_out_before_a_kill_still_counts(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    for number in range(80):
        noise(number, (16, 16)).save(root / f"{number:02d}.png")
    (root / "03.png").write_bytes(b"broken")

    def stop(what: str, done: int, total: int) -> None:
        if done > 40 and what == "train":
            raise Interruption

    listing = list_source("folder", root, SourceOptions())
    options = {"shard_bytes": SMALL_SHARDS, "max_errors": 1}
    images = ImageOptions(channels=3, resolution=16)
    with pytest.raises(Interruption):
        build_dataset(
            "folder", listing, tmp_path / "out", images, BuildOptions(workers=0, on_error="skip", **options), stop
        )
    with pytest.raises(UserError, match=r"03\.png is not an image"):
        built("folder", root, tmp_path / "out", channels=3, resolution=16, **options)
    result = built("folder", root, tmp_path / "out", channels=3, resolution=16, on_error="skip", **options)
    assert (result.counts, [problem.name for problem in result.skipped]) == ({"train": 79}, ["03.png"])
    assert result.resumed_samples > 20
    assert json.loads((tmp_path / "out/train/dataset.json").read_text())["left_out"]


def test_a_full_disk_is_no_fault_of_the_images(photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"out cannot be written \(Not a directory\)"):
        built("folder", photos, tmp_path / "file/out", resolution=8)


def test_samples_without_origins_have_only_image_and_label(tmp_path):
    afhq(tmp_path / "in")
    built("afhq", tmp_path / "in", tmp_path / "out", origins=False)
    assert {sample.origin for sample in samples(tmp_path / "out/train")} == {None}
    assert all(sample.label is not None for sample in samples(tmp_path / "out/train"))
    assert not verify(tmp_path / "out", 0).broken
