"""`python recipes/X.py data.path=photos/`: shards are built on first use, and settings follow from the data."""

import gzip
import json
import os
import pickle
import re
import shutil
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from layouts import image_bytes, mnist, noise, tar
from omegaconf import OmegaConf
from small_disk import SmallDisk

from latentscale.building.build_dataset import Built, build_dataset
from latentscale.building.build_options import BuildOptions
from latentscale.data import own_images
from latentscale.data.first_use import node_lock
from latentscale.data.own_images import OwnShards, build_own_images, holds_shards
from latentscale.errors import UserError
from latentscale.methods.registry import METHODS
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.training.automatic_settings import SIDES, automatic_settings
from launching import ROOT, Finished, Processes

# a network of few weights, so that a step takes milliseconds; all else follows from the data
SMALL = [
    "network.widths=[4,4]", "network.base_width=4", "latent.dim=8", "training.steps=1", "evaluation.images=16",
    "snapshot.every_steps=0", "telemetry.tensorboard=false", "telemetry.progress=false",
]  # fmt: skip


def photos(folder: Path, count: int = 40, side: tuple[int, int] = (20, 17), first: int = 0) -> Path:
    """Photographs of several sizes in class folders."""
    for number in range(first, first + count):
        path = folder / ("cat" if number % 2 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(number, (side[0] + number % 5, side[1])).save(path)
    return folder


def recipe(processes: Processes, cwd: Path, *arguments: str, name: str = "pvdgan") -> Finished:
    return processes.run([sys.executable, str(ROOT / "recipes" / f"{name}.py"), *arguments], cwd)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LATENTSCALE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def config_of(run: Path) -> dict:
    content = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    assert isinstance(content, dict)
    return content


def test_a_folder_of_photographs_trains_in_one_go(own_cache: Path, processes: Processes, tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    done = recipe(processes, tmp_path, "data.path=photos", "run.dir=run", *SMALL)
    assert done.code == 0, done.err
    assert re.search(
        r"data: photos was built into .*: 40 images in train, each 16x16 pixels \(data.resolution\)", done.err
    )
    assert "data: labels of 40 images from the folders' names" in done.err
    assert "data: settings for 40 samples of 16x16 pixels: residual networks" in done.err
    config = config_of(tmp_path / "run")
    assert config["data"]["name"] == "shards"
    assert config["data"]["shape"] == [3, 16, 16]
    assert config["training"]["batch"] == 32
    shards = Path(config["data"]["path"])
    assert shards.parent == own_cache / "datasets"
    assert ShardedDataset.open(shards / "train").labels == ["cat", "dog"]
    # it goes on with what it began with, although the folder has grown and a new run would begin otherwise
    photos(tmp_path / "photos", 4000, (8, 8), first=40)
    again = recipe(processes, tmp_path, "data.path=photos", "run.dir=run", *SMALL, "training.steps=2")
    assert again.code == 0, again.err
    assert f"data: photos has changed since this run began: it goes on with what it began with, {shards}" in again.err
    assert "trained pvdgan for 2 steps" in again.out
    after = config_of(tmp_path / "run")
    assert after["data"] == config["data"]
    assert after["training"] == {**config["training"], "steps": 2}
    # the shards themselves may be given, too
    direct = recipe(processes, tmp_path, f"data.path={shards}", "run.dir=run", *SMALL, "training.steps=3")
    assert direct.code == 0, direct.err
    fresh = recipe(processes, tmp_path, "data.path=photos", "run.dir=other", *SMALL)
    assert fresh.code == 0, fresh.err
    assert "each 8x8 pixels" in fresh.err


def test_explicit_keys_and_presets_win_and_dry_run_says_which_why_and_how_much_memory(
    own_cache: Path, processes: Processes, tmp_path: Path
) -> None:
    photos(tmp_path / "photos", 6)
    done = recipe(
        processes,
        tmp_path,
        "data.path=photos",
        "data.resolution=8",
        "--dry-run",
        "training.batch=16",
        "data.name=shards",
    )
    assert done.code == 0, done.err
    assert "settings for 6 samples of 8x8 pixels" in done.err
    assert "half as wide because there are fewer than 2,000" in done.err
    assert "\n  batch: 16\n" in done.out
    assert re.search(
        r"memory: about [\d.]+ MiB in each process \([\d.]+ MiB for a step, .*\); this machine has [\d.]+ GiB", done.out
    )
    wrong = recipe(processes, tmp_path, "data.path=photos", "preset=digits8", "data.resolution=8", "--dry-run")
    assert wrong.code == 2
    assert "data.shape=[1, 8, 8] but the samples of photos are [3, 8, 8]: leave data.shape and preset out" in wrong.err
    # no preset at all is a choice too
    without = recipe(processes, tmp_path, "--dry-run", "preset=", "data.path=photos", "data.resolution=8")
    assert "settings for" not in without.err
    digits = recipe(processes, tmp_path, "--dry-run", "data.name=digits")
    assert "  dim: 128" in digits.out
    assert "data: " not in digits.err


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"posthoc_encoder"}))  # which takes a finished run
def test_settings_fit_every_method(name: str, numbered_digits: Path, processes: Processes, tmp_path: Path) -> None:
    done = recipe(processes, tmp_path, f"data.path={numbered_digits}", "--dry-run", name=name)
    assert done.code == 0, done.err
    assert "8 streams" in done.out or "4 streams" in done.out


@pytest.fixture(scope="module")
def numbered_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of labelled 8×8 images."""
    from layouts import built

    folder = tmp_path_factory.mktemp("digits") / "out"
    built("digits", None, folder)
    return folder


def test_a_runs_first_lines_say_what_a_launcher_may_have_dropped(processes: Processes, tmp_path: Path) -> None:
    from launching import launch_command

    command = launch_command(2, ROOT / "recipes" / "pvdgan.py")
    small = [word for word in SMALL if "progress" not in word and "widths" not in word]
    words = ["run.dir=run", "network.widths=[4]", "training.accumulation=2", "training.precision=bf16", *small]
    done = processes.run([*command, *words], tmp_path)
    assert done.code == 0, done.err
    line = "pvdgan on 1,500 samples of digits, in bf16: batch 32 = 2 processes x accumulation 2 x 8 samples"
    assert done.err.splitlines()[0] == line


def test_settings_follow_from_shape_number_and_labels_alone() -> None:
    for side in SIDES:
        for images in (100, 50_000):
            found = automatic_settings("x", (3, side, side), images, 0, "pvdgan")
            # a block for each side from this one to 8
            assert len(found["network.widths"]) == side.bit_length() - 3
            assert found["training.batch"] % found["distributed.streams"] == 0
            assert 256_000 <= found["training.batch"] * found["training.steps"] <= 5_000_000
    assert automatic_settings("x", (3, 256, 256), 70_000, 0, "pvdgan")["network.widths"] == [
        64,
        128,
        256,
        512,
        512,
        512,
    ]
    few, many = (automatic_settings("x", (1, 64, 64), count, 0, "pvdgan") for count in (1999, 2000))
    assert few["network.base_width"] * 2 == many["network.base_width"]
    assert automatic_settings("x", (1, 64, 64), 5000, 7, "cgpgan")["latent.categories"] == [7]
    assert automatic_settings("x", (1, 28, 28), 60_000, 10, "pvdgan")["network.family"] == "dcgan"
    assert automatic_settings("x", (2,), 5000, 4, "pvdgan")["network.family"] == "mlp"
    for shape in ((3, 100, 75), (3, 48, 48), (3, 4, 4), (3, 2048, 2048)):
        with pytest.raises(UserError, match=rf"x holds images of {shape[1]}x{shape[2]} pixels, .*--resolution 64"):
            automatic_settings("x", shape, 100, 0, "pvdgan")
        assert automatic_settings("x", shape, 100, 0, "pvdgan", any_shape=True)["data.shape"] == list(shape)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "idx", "stylegan"])
def test_archives_and_idx_files_and_stylegans_folders_are_images(kind: str, own_cache: Path, tmp_path: Path) -> None:
    if kind == "idx":
        path, count = mnist(tmp_path / "mnist", gz=False), 40
    else:
        path, count = photos(tmp_path / "photos", 10, (16, 16)), 10
        if kind == "stylegan":
            names = [str(file.relative_to(path)) for file in path.rglob("*.png")]
            (path / "dataset.json").write_text(json.dumps({"labels": [[name, 1] for name in names]}))
        else:
            with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
                for file in sorted(path.rglob("*.png")):
                    archive.write(file, file.relative_to(path))
            path = tmp_path / "photos.zip"
    assert not holds_shards(path)
    found = build_own_images(path, 0, None, lambda what, done, total: None)
    dataset = ShardedDataset.open(found.folder / "train")
    assert dataset.count == count
    assert dataset.shape == ((1, 28, 28) if kind == "idx" else (3, 16, 16))
    assert holds_shards(found.folder)
    assert build_own_images(path, 0, None, lambda what, done, total: None).folder == found.folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tars", "one tar", "pattern", "parquet", "npz", "npy", "repository"])
def test_files_of_images_are_images(kind: str, own_cache: Path, tmp_path: Path) -> None:
    files = [image_bytes(number, (16, 16)) for number in range(6)]
    columns = {"image": files, "label": [number % 2 for number in range(6)]}
    path, shape, labels = tmp_path / "in", (3, 16, 16), ["0", "1"]
    path.mkdir()
    match kind:
        case "tars" | "one tar" | "pattern":
            for part in range(2):
                half = range(3 * part, 3 * part + 3)
                members = {f"{n}.png": files[n] for n in half} | {f"{n}.cls": b"%d" % (n % 2) for n in half}
                tar(path / f"train-{part}.tar", members if kind != "one tar" or not part else {})
            path = {"tars": path, "one tar": path / "train-0.tar", "pattern": path / "train-{0..1}.tar"}[kind]
        case "parquet" | "repository":
            folder = path if kind == "parquet" else path / "data"
            folder.mkdir(exist_ok=True)
            parquet.write_table(pyarrow.table(columns), folder / "train-00000-of-00001.parquet")
            path = path if kind == "repository" else folder / "train-00000-of-00001.parquet"
        case _:
            arrays = {"images": np.zeros((6, 28, 28), np.uint8), "labels": np.arange(6) % 2}
            np.savez(path / "small.npz", **arrays) if kind == "npz" else np.save(path / "images.npy", arrays["images"])
            shape, labels = (1, 28, 28), labels if kind == "npz" else []
    assert not holds_shards(path)
    found = build_own_images(path, 0, None, lambda what, done, total: None)
    dataset = ShardedDataset.open(found.folder / "train")
    assert (dataset.count, dataset.shape, dataset.labels) == (3 if kind == "one tar" else 6, shape, labels)
    assert build_own_images(path, 0, None, lambda what, done, total: None).folder == found.folder


def test_files_of_several_kinds_are_told_apart(own_cache: Path, tmp_path: Path) -> None:
    tar(tmp_path / "in/tars/a.tar", {"0.png": image_bytes(0)})
    np.save(tmp_path / "in/images.npy", np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(UserError, match=r"in holds files for npz and tar: name the files of one kind"):
        build_own_images(tmp_path / "in", 0, None, lambda what, done, total: None)


def test_what_is_wrong_with_a_path_is_named(own_cache: Path, processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    stray = photos(tmp_path / "stray", 4)
    noise(1).save(stray / "logo.png")
    for path, message in (
        ("gone", "data.path=gone does not exist: name a folder of shards or of images"),
        ("text.txt", "data.path=text.txt is not a folder, a .zip, a .tar, a .parquet, a .npz, a .npy"),
        ("empty", "data.path=empty cannot be built into shards (empty holds no images: name a folder of images)"),
        ("stray", "logo.png is in no class folder"),
    ):
        done = recipe(processes, tmp_path, f"data.path={path}", "run.dir=run")
        assert done.code == 2
        assert message in done.err
        assert "Traceback" not in done.err
        assert done.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def nothing(what: str, done: int, total: int) -> None:
    """A report of progress that nobody reads."""


def build(path: Path, resolution: int = 0, used: Path | None = None, **more: Any) -> OwnShards:
    return build_own_images(path, resolution, used, nothing, **more)


@pytest.mark.slow
@pytest.mark.parametrize(("side", "built_as"), [(8, 8), (28, 28), (1024, 1024), (20, 16), (300, 256)])
def test_squares_for_which_there_are_settings_keep_their_size(
    side: int, built_as: int, own_cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(2):
        noise(number, (side, side)).save(tmp_path / f"in/{number}.png")
    shards = ShardedDataset.open(build(tmp_path / "in").folder / "train")
    assert shards.shape == (3, built_as, built_as)
    kept = shards.read(0, 0)[0] == (tmp_path / "in/0.png").read_bytes()
    assert kept == (side == built_as)


@pytest.mark.slow
def test_what_decides_the_samples_decides_which_shards_are_used(own_cache: Path, tmp_path: Path) -> None:
    path = photos(tmp_path / "photos", 4)
    first = build(path)
    assert [note.split(":")[0] for note in first.built][-1] == f"{path} was built into {first.folder}"
    again = build(path)
    assert (again.folder, again.built) == (first.folder, [])
    found = {first.folder, build(path, 8).folder, build(path, preset_side=8).folder}
    assert len(found) == 2
    (path / "labels.csv").write_text("file,kind\n" + "".join(f"{'cat' if n % 2 else 'dog'}/{n}.png,{'ab'[n % 2]}\n"
                                                             for n in range(4)))  # fmt: skip
    by_table = build(path)
    # other names of the same labels are another content, too
    (path / "labels.csv").write_text((path / "labels.csv").read_text().replace(",a", ",c"))
    renamed = build(path)
    assert len(found | {by_table.folder, renamed.folder}) == 4
    assert [ShardedDataset.open(shards.folder / "train").labels for shards in (by_table, renamed)] == [
        ["a", "b"], ["b", "c"]]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("how", ["folder", "pattern"])
def test_tars_are_built_again_where_one_was_added_or_changed(how: str, own_cache: Path, tmp_path: Path) -> None:
    def part(number: int) -> None:
        members = {f"{n}.png": image_bytes(n) for n in range(3 * number, 3 * number + 3)}
        tar(tmp_path / f"in/pets-{number}.tar", members)

    def built(last: int) -> OwnShards:
        return build(tmp_path / ("in" if how == "folder" else f"in/pets-{{0..{last}}}.tar"), 8)

    part(0)
    part(1)
    first = built(1)
    assert first.built
    assert ShardedDataset.open(first.folder / "train").count == 6
    again = built(1)
    assert (again.folder, again.built) == (first.folder, [])
    os.utime(tmp_path / "in/pets-1.tar", ns=(10**18, 10**18))
    touched = built(1)
    assert touched.built
    assert touched.folder != first.folder
    part(2)
    added = built(2)
    assert added.built
    assert added.folder not in (first.folder, touched.folder)
    assert ShardedDataset.open(added.folder / "train").count == 9


def test_compressed_tars_and_pickles_are_named(own_cache: Path, tmp_path: Path) -> None:
    for name, content, message in (
        ("a.tar.gz", gzip.compress(b"x"), r"data\.path=.*a\.tar\.gz is compressed, .* gunzip < "),
        ("a.pkl", pickle.dumps([1]), r"data\.path=.*a\.pkl is a pickle, which is never opened"),
    ):
        folder = tmp_path / f"of {name}"
        folder.mkdir()
        (folder / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            build(folder / name)
        if name == "a.tar.gz":
            with pytest.raises(
                UserError, match=r"data\.path=.*\{a,b\}\.tar\.gz is compressed, .* gunzip < .*a\.tar\.gz"
            ):
                build(folder / "{a,b}.tar.gz")
        with pytest.raises(UserError, match=r"data\.path=.* holds no images, but "):
            build(folder)


@pytest.mark.slow
def test_a_run_that_goes_on_needs_only_the_shards_it_began_with(own_cache: Path, tmp_path: Path) -> None:
    path = photos(tmp_path / "photos", 4)
    used = build(path, 8).folder
    # a command without the resolution that the run began with is no change of the folder
    assert build(path, 0, used) == build(path, 8, used) == OwnShards(used)
    photos(path, 2, first=4)
    assert build(path, 8, used).notes == [
        f"{path} has changed since this run began: it goes on with what it began with, {used}"
    ]
    noise(1).save(path / "logo.png")
    stray = build(path, 8, used)
    assert stray.folder == used
    assert "logo.png is in no class folder" in stray.notes[0]
    shutil.rmtree(path)
    gone = build(path, 8, used)
    assert gone.folder == used
    assert gone.notes[0].endswith(f"; this run goes on with the shards it began with, {used}")
    # shards that have gone are built again, and those of another folder are not this one's
    photos(path, 6)
    assert build(other := photos(tmp_path / "other", 2), 8, used).folder != used
    assert build(other, 8, used).notes == []
    shutil.rmtree(used)
    assert build(path, 8, used).folder not in (used, None)
    assert build(path, 8, used).built == []


def test_a_killed_build_continues(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = photos(tmp_path / "photos", 60)
    monkeypatch.setattr(own_images, "BuildOptions", lambda: BuildOptions(workers=0, shard_bytes=10_000))

    def kill(what: str, done: int, total: int) -> None:
        if what == "train" and done > 40:
            raise SystemExit(137)

    with pytest.raises(SystemExit):
        build_own_images(path, 8, None, kill)
    found: list[Built] = []

    def watched(*arguments: Any) -> Built:
        found.append(build_dataset(*arguments))
        return found[-1]

    monkeypatch.setattr(own_images, "build_dataset", watched)
    shards = build(path, 8)
    assert found[0].resumed_samples > 0
    assert ShardedDataset.open(shards.folder / "train").count == 60


def test_a_full_disk_ends_a_build_in_one_line(small_disk: SmallDisk, tmp_path: Path, processes: Processes) -> None:
    photos(tmp_path / "photos", 60, (64, 64))
    ballast = small_disk.fill(leave_bytes=200_000)
    words = ["data.path=photos", "run.dir=run", *SMALL]
    script = [sys.executable, str(ROOT / "recipes" / "pvdgan.py")]
    full = processes.run([*script, *words], tmp_path, LATENTSCALE_CACHE=str(small_disk.path / "cache"))
    assert full.code == 2
    assert full.err.count("\n") == 1, full.err
    for part in ("data.path=photos cannot be built", "No space left on device", "make room in", "LATENTSCALE_CACHE"):
        assert part in full.err
    assert not (tmp_path / "run").exists()
    ballast.unlink()
    done = processes.run([*script, *words], tmp_path, LATENTSCALE_CACHE=str(small_disk.path / "cache"))
    assert done.code == 0, done.err


@pytest.mark.slow
def test_a_process_waits_for_the_one_that_builds(own_cache: Path, tmp_path: Path) -> None:
    path, waited = photos(tmp_path / "photos", 4), threading.Event()
    shards: list[OwnShards] = []
    folder = build(path, 8).folder
    shutil.rmtree(folder)
    with node_lock(folder.with_name(f".{folder.name}.lock")):
        other = threading.Thread(target=lambda: shards.append(build(path, 8, waits=waited.set)))
        other.start()
        assert waited.wait(30)
        assert shards == []
    other.join(30)
    assert shards[0].folder == folder


def test_settings_and_folders_that_cannot_belong_together_are_refused_before_anything_is_built(
    own_cache: Path, processes: Processes, tmp_path: Path
) -> None:
    photos(tmp_path / "photos", 8)
    words = ["data.path=photos", "run.dir=run", *SMALL]
    wrong = recipe(processes, tmp_path, *words, "data.resolution=100")
    assert wrong.err.startswith("error: data.resolution=100: there are settings for squares of 8, 16, 28, 32, ")
    digits = recipe(processes, tmp_path, "run.dir=digits", *SMALL, "network.widths=[4]")
    assert digits.code == 0, digits.err
    other = recipe(processes, tmp_path, *words, "run.dir=digits")
    assert other.err.startswith("error: run.dir=digits contains a run on data.name=digits, not on data.path=photos: ")
    assert "run.restart=true" in other.err
    assert not own_cache.joinpath("datasets").exists()
    begun = recipe(processes, tmp_path, *words)
    assert begun.code == 0, begun.err
    shards = config_of(tmp_path / "run")["data"]["path"]
    for more, message in (
        ([f"data.path={shards}", "data.resolution=8"], "data.resolution=8, but the samples of photos are [3, 16, 16]"),
        (["data.resolution=8"], "data.resolution=8, but the samples of photos are [3, 16, 16]"),
    ):
        refused = recipe(processes, tmp_path, *words, *more)
        assert refused.code == 2
        assert message in refused.err
    photos(tmp_path / "larger", 8, (40, 40))
    larger = recipe(processes, tmp_path, *words, "data.path=larger")
    assert "run.dir=run contains a run on samples of [3, 16, 16], not on data.path=larger" in larger.err
    moved = recipe(processes, tmp_path, *words, "--data.path=larger", "run.restart=true", "network.widths=[4,4,4]")
    assert moved.code == 0, moved.err
    assert config_of(tmp_path / "run")["data"]["shape"] == [3, 32, 32]


def test_a_run_without_a_checkpoint_holds_nothing_of_its_settings(
    own_cache: Path, processes: Processes, tmp_path: Path
) -> None:
    photos(tmp_path / "photos", 8)
    photos(tmp_path / "larger", 8, (40, 40))
    words = ["run.dir=run", *SMALL, "network.widths=[4,4,4]"]
    # it ends after the folder is made and before the first step
    refused = recipe(processes, tmp_path, "data.path=photos", *words, "run.start_from=photos")
    assert "run.start_from=photos: photos contains no trained model" in refused.err
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "config.yaml").write_text("data: {name: shards, path: photos, shape: [3, 16, 16]}\n")
    done = recipe(processes, tmp_path, "data.path=larger", *words)
    assert done.code == 0, done.err
    assert config_of(tmp_path / "run")["data"]["shape"] == [3, 32, 32]


def test_a_post_hoc_encoder_takes_the_networks_of_its_generator(
    own_cache: Path, processes: Processes, tmp_path: Path
) -> None:
    photos(tmp_path / "photos", 8)
    words = ["data.path=photos", *SMALL]
    first = recipe(processes, tmp_path, *words, "run.dir=vanilla", name="vanilla")
    assert first.code == 0, first.err
    words += ["method.generator_run=vanilla", "run.dir=encoder"]
    encoder = recipe(processes, tmp_path, *words, name="posthoc_encoder")
    assert encoder.code == 0, encoder.err


def test_two_processes_build_once_and_train_together(own_cache: Path, processes: Processes, tmp_path: Path) -> None:
    from launching import launch_command

    photos(tmp_path / "photos", 64)
    command = launch_command(2, ROOT / "recipes" / "pvdgan.py")
    done = processes.run([*command, "data.path=photos", "run.dir=run", *SMALL], tmp_path)
    assert done.code == 0, done.err
    assert done.err.count("was built into") == 1
    assert done.err.count("data: settings for 64 samples") == 1
    assert len([path for path in (own_cache / "datasets").iterdir() if path.is_dir()]) == 1
    (shards,) = (own_cache / "datasets").glob("photos-*/train")
    assert ShardedDataset.open(shards).shape == (3, 16, 16)
