"""Small files are read as a whole, and never a pipe or a device."""

import os
from pathlib import Path

import pytest

from latentscale.regular_files import file_status, read_file, read_json


def test_a_file_and_a_link_to_one_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, 2.5, "é"]}', encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "a.json")
    for path in (tmp_path / "a.json", tmp_path / "link"):
        assert read_json(path) == {"a": [1, 2.5, "é"]}
        assert read_file(path) == '{"a": [1, 2.5, "é"]}'.encode()
        assert file_status(path).st_size == 21


@pytest.mark.parametrize("reads", [file_status, read_file, read_json])
def test_a_pipe_a_link_to_one_and_a_device_are_not_opened(
    reads: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("it was opened"))
    for path in (tmp_path / "pipe", tmp_path / "link", Path("/dev/null")):
        with pytest.raises(OSError, match="it is a device, a pipe or a socket, not a file"):
            reads(path)  # type: ignore[operator]


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe\x00", b"1 2"])
def test_what_is_no_json_raises_one_kind_of_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011 (each has a message of its own)
        read_json(tmp_path / "a.json")
