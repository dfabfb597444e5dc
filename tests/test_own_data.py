"""`python recipes/X.py data.path=photos/`: shards are built on first use, and settings follow from the data."""

import json
import re
import sys
import zipfile
from pathlib import Path

import pytest
from layouts import mnist, noise
from omegaconf import OmegaConf

from latentscale.data.own_images import build_own_images, holds_shards
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


def test_a_folder_that_holds_a_run_on_other_data_is_named(
    own_cache: Path, processes: Processes, tmp_path: Path
) -> None:
    small = [word for word in SMALL if "widths" not in word]
    digits = recipe(processes, tmp_path, "run.dir=run", "network.widths=[4]", *small)
    assert digits.code == 0, digits.err
    photos(tmp_path / "photos")
    done = recipe(processes, tmp_path, "data.path=photos", "run.dir=run", *SMALL)
    assert done.code == 2
    line = done.err.splitlines()[-1]
    assert line.startswith("error: ")
    assert "data.name: digits → shards" in line
    assert "run.restart=true" in line


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
        r"memory: at least about [\d.]+ MiB in each process, most of it for .*; this machine has", done.out
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


def test_what_is_wrong_with_a_path_is_named(own_cache: Path, processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    stray = photos(tmp_path / "stray", 4)
    noise(1).save(stray / "logo.png")
    for path, message in (
        ("gone", "data.path=gone does not exist: name a folder of shards or of images"),
        ("text.txt", "data.path=text.txt is not a folder, a .zip or a .tar"),
        ("empty", "data.path=empty cannot be built into shards (empty holds no images: name a folder of images)"),
        ("stray", "logo.png is in no class folder"),
    ):
        done = recipe(processes, tmp_path, f"data.path={path}", "run.dir=run")
        assert done.code == 2
        assert message in done.err
        assert "Traceback" not in done.err
        assert done.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_two_processes_build_once_and_train_together(own_cache: Path, processes: Processes, tmp_path: Path) -> None:
    from launching import launch_command

    photos(tmp_path / "photos", 64)
    command = launch_command(2, ROOT / "recipes" / "pvdgan.py")
    done = processes.run([*command, "data.path=photos", "run.dir=run", *SMALL], tmp_path)
    assert done.code == 0, done.err
    assert done.err.count("was built into") <= 1
    assert len([path for path in (own_cache / "datasets").iterdir() if path.is_dir()]) == 1
    (shards,) = (own_cache / "datasets").glob("photos-*/train")
    assert ShardedDataset.open(shards).shape == (3, 16, 16)
