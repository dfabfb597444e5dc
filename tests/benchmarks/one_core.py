"""Binds a measurement and its threads to one core, and describes the machine."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

LIBRARIES = ("numpy", "pillow", "simplejpeg", "imagecodecs", "opencv-python-headless", "webdataset", "torch")


def stay_on_one_core() -> None:
    """Bind this process, and all threads and processes it starts, to the last core it may use, if the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def about_this_machine(rounds: int) -> dict[str, Any]:
    """Versions and load, without names."""
    found: dict[str, Any] = {"python": platform.python_version(), "architecture": platform.machine()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return {**found, "load average": round(os.getloadavg()[0], 2), "rounds": rounds}
