"""Latentscale: train and use invertible GANs, from a laptop to many nodes."""

import os
from typing import TYPE_CHECKING, Any

# read when torch loads: its C++ side writes a page of stack frames where a process has gone, which we say in one line
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

if TYPE_CHECKING:
    from latentscale.config import Config as Config
    from latentscale.inversion.inverter import Inverter as Inverter
    from latentscale.training.loop import train as train

__all__ = ["Config", "Inverter", "train"]
__version__ = "0.1.0"

_HOMES = {
    "Config": "latentscale.config",
    "Inverter": "latentscale.inversion.inverter",
    "train": "latentscale.training.loop",
}


def __getattr__(name: str) -> Any:
    # imported on first use: `import latentscale` must not pull in the training stack for those who only invert
    if name not in _HOMES:
        raise AttributeError(f"module 'latentscale' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
