"""Files and folders are complete or absent."""

import os
import stat
from pathlib import Path

import pytest

from latentscale.atomic import new_file, new_folder
from latentscale.errors import UserError


def test_a_file_replaces_the_old_one_only_on_success(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with new_file(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()

    def fail() -> None:
        with new_file(path) as temporary:
            temporary.write_text("half of tw")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert path.read_text() == "one"
    with new_file(path) as temporary:
        temporary.write_text("two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_replaces_the_old_one_only_on_success(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with new_folder(path) as new:
        (new / "a").write_text("one")
        (new / "b").write_text("one")

    def fail() -> None:
        with new_folder(path) as new:
            (new / "a").write_text("two")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert {file.name: file.read_text() for file in path.iterdir()} == {"a": "one", "b": "one"}
    with new_folder(path) as new:
        (new / "a").write_text("two")
    assert {file.name: file.read_text() for file in path.iterdir()} == {"a": "two"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_survives_what_a_killed_process_left(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with new_folder(path) as new:
        (new / "a").write_text("zero")
        left = new
    left.mkdir()
    (left / "stale").write_text("half")
    with new_folder(path) as new:
        (new / "a").write_text("one")
    assert [file.name for file in path.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "folder", "socket", ".", ".."])
def test_a_file_replaces_nothing_but_a_file(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("output.png") if kind[0] != "." else Path(kind)
    if "pipe" in kind:
        os.mkfifo("pipe" if "link" in kind else path)
    if "link" in kind:
        path.symlink_to("pipe")
    if kind == "folder":
        path.mkdir()
    if kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    before = {entry.name: entry.lstat() for entry in tmp_path.iterdir()}

    def write() -> None:
        with new_file(path) as new:
            new.write_text("content")

    with pytest.raises(
        UserError, match=f"^{path} is a (named pipe|folder|socket), which is not replaced: name another"
    ):
        write()
    assert {entry.name: entry.lstat() for entry in tmp_path.iterdir()} == before


def test_a_folder_replaces_nothing_but_a_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to("pipe")

    def write(name: str) -> None:
        with new_folder(tmp_path / name) as new:
            (new / "a").write_text("one")

    for name in ("pipe", "file", "link"):
        with pytest.raises(UserError, match=f"{name} is a (named pipe|file), which is not replaced"):
            write(name)
    assert (tmp_path / "file").read_text() == "kept"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "link", "pipe"]


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 127)
    with new_file(path) as new:
        new.write_text("content")
    assert path.read_text() == "content"
