"""The bar of a build is drawn where somebody looks at it, and nowhere else."""

import os
import pty
import sys
import threading
from pathlib import Path

import pytest
from layouts import fill, image_bytes

from latentscale.commands.app import app


def build(root: Path, out: Path) -> None:
    app(["shards", "build", "folder", str(root), "--out", str(out), "--workers", "0"], standalone_mode=False)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return fill(tmp_path / "in", {f"{number}.png": image_bytes(number) for number in range(30)})


def test_on_a_terminal_a_bar_shows_how_much_is_done(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def look() -> None:
        while True:
            try:
                shown.append(os.read(ours, 65536))
            except OSError:  # the other end is closed
                return

    looking = threading.Thread(target=look)
    looking.start()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        build(images, tmp_path / "out")
    looking.join(10)
    os.close(ours)
    text = b"".join(shown).decode()
    assert "30/30" in text
    assert "100%" in text


def test_in_a_pipe_there_is_none(images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    build(images, tmp_path / "out")
    out, err = capfd.readouterr()
    assert err == ""
    assert "train: 30 images" in out
