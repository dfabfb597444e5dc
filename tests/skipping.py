"""A test may be skipped in CI for want of a GPU or of real data, and of nothing that can be installed or allowed.

A conftest that imports the two hooks turns every other skip into a failure where the environment variable CI is true.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

NEEDS_GPU, HAS_GPU, NEEDS_DATA = "needs a GPU", "has a GPU", "needs real data"
EXCUSED = (NEEDS_GPU, HAS_GPU, NEEDS_DATA)
"""How the reason of a skip begins that CI accepts."""

needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the processes of tests need Linux: its prctl, /proc and namespaces"
)
"""Marks a test that starts processes by itself; a test with the fixture ``processes`` has it already."""


def refused(reason: str) -> str:
    """Why a skip is a failure; empty where it is accepted."""
    if os.environ.get("CI") != "true" or reason.startswith(EXCUSED):
        return ""
    return (
        f"skipped in CI: {reason}\nCI must have what the tests need: install it (tests/debian-packages.txt,"
        " pyproject.toml), run as root with CAP_SYS_ADMIN for namespaces and mounts (in a container: docker run"
        f" --privileged), or begin the reason with one of: {', '.join(EXCUSED)}"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[Any]:
    """Refuse the skip of a test."""
    report = yield
    if not hasattr(report, "wasxfail"):
        _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[Any]:
    """Refuse the skip of a whole file."""
    report = yield
    _refuse(report)
    return report


def _refuse(report: Any) -> None:
    if report.skipped:
        _, _, reason = report.longrepr
        if why := refused(reason.removeprefix("Skipped: ")):
            report.outcome, report.longrepr = "failed", why
