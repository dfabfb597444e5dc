"""Files and folders are complete or absent."""

from pathlib import Path

import pytest

from latentscale.atomic import new_file, new_folder


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
