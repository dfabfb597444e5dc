"""Shards without their dataset.json are named by every command and by training, on this machine and behind URLs."""

import shutil
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from buckets import s3_bucket
from numbered_images import LABELS, SHAPE, numbered_samples

from latentscale.data.datasets import open_dataset, open_held_out
from latentscale.errors import UserError
from latentscale.shards.dataset_folders import dataset_folders
from latentscale.shards.dataset_writer import write_shards
from latentscale.storage.dataset_files import StorageOptions
from launching import ROOT, Processes

SHARDS_ALONE = r"{} holds shards \(shard-000000\.(index\.safetensors|tar)\) but no dataset\.json: "


def splits(folder: Path, names: tuple[str, ...] = ("train", "val", "test")) -> Path:
    for name in names:
        write_shards(numbered_samples(10), folder / name, "n", SHAPE, LABELS, "CC0", 4 * 2048)
    return folder


def open_both(path: Path | str, options: StorageOptions | None = None) -> None:
    open_held_out(open_dataset("shards", path, "train", options), "shards", path, options)


@pytest.fixture
def options(tmp_path: Path) -> StorageOptions:
    return StorageOptions(tmp_path / "cache", retry_seconds=5.0, stall_seconds=5.0)


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("left", [("*.tar",), ("*.index.safetensors",), ("*.tar", "*.index.safetensors")])
def test_a_split_that_lost_its_description_is_named(split: str, left: tuple[str, ...], tmp_path: Path) -> None:
    root = splits(tmp_path / "data")
    (root / split / "dataset.json").unlink()
    for file in (root / split).iterdir():
        if not any(file.match(pattern) for pattern in left):
            file.unlink()
    for act in (dataset_folders, open_both):
        with pytest.raises(UserError, match=SHARDS_ALONE.format(root / split)) as refused:
            act(root)
        assert "\n" not in str(refused.value)


def test_one_dataset_that_lost_its_description_is_named(tmp_path: Path) -> None:
    root = splits(tmp_path / "data", ("one",))
    (root / "one" / "dataset.json").unlink()
    for act in (dataset_folders, open_both):
        with pytest.raises(UserError, match=SHARDS_ALONE.format(root / "one")):
            act(root / "one")
    # beside whole splits, too
    splits(root / "one", ("train", "test"))
    for act in (dataset_folders, open_both):
        with pytest.raises(UserError, match=SHARDS_ALONE.format(root / "one")):
            act(root / "one")


def test_a_description_that_is_no_file_is_missing(tmp_path: Path) -> None:
    root = splits(tmp_path / "data")
    (root / "test" / "dataset.json").unlink()
    (root / "test" / "dataset.json").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=SHARDS_ALONE.format(root / "test")):
        dataset_folders(root)


def test_other_folders_and_unfinished_builds_are_left_alone(tmp_path: Path) -> None:
    root = splits(tmp_path / "data", ("train", "test"))
    for name in (".val.0123.partial", "pictures"):
        shutil.copytree(root / "test", root / name)
        (root / name / "dataset.json").unlink()
    for file in (root / "pictures").iterdir():
        file.rename(file.with_name(f"my-{file.name}"))
    assert dataset_folders(root) == [root / "train", root / "test"]
    open_both(root)
    # below a dataset nothing is a split
    shutil.copytree(root / ".val.0123.partial", root / "train" / "old")
    assert dataset_folders(root / "train") == [root / "train"]


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("kind", ["file", "http", pytest.param("s3", marks=pytest.mark.slow)])
def test_a_split_behind_a_url_is_named_where_the_remote_lists(
    kind: str, split: str, tmp_path: Path, options: StorageOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = splits(tmp_path / "data")
    (root / split / "dataset.json").unlink()

    def refused(url: str) -> None:
        for act in (dataset_folders, open_both):
            with pytest.raises(UserError, match=SHARDS_ALONE.format(f"{url}/{split}")):
                act(url, options)

    if kind == "file":
        refused(f"file://{root}")
    elif kind == "http":
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(root)))
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            refused(f"http://127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()
            server.server_close()
    else:
        with s3_bucket(root) as (url, settings):
            for name, value in settings.items():
                monkeypatch.setenv(name, value)
            refused(url)


@pytest.mark.processes
def test_every_command_and_training_end_with_status_2(tmp_path: Path, processes: Processes) -> None:
    root = splits(tmp_path / "data", ("train", "test"))
    (root / "test" / "dataset.json").unlink()
    shards = [str(Path(sys.executable).with_name("latentscale")), "shards"]
    recipe = [sys.executable, str(ROOT / "recipes" / "vanilla.py"), "data.name=shards", f"data.path={root}"]
    for command in (
        [*shards, "verify", str(root)],
        [*shards, "info", str(root), "--picture", "none"],
        [*shards, "split", str(root), "--test", "2", "--out", str(tmp_path / "out")],
        [*recipe, f"run.dir={tmp_path / 'run'}"],
    ):
        finished = processes.run(command)
        assert finished.code == 2, (command, finished.out, finished.err)
        assert f"error: {root}/test holds shards (shard-000000.index.safetensors) but no dataset.json" in finished.err
        assert "Traceback" not in finished.err
    assert not (tmp_path / "out").exists()
