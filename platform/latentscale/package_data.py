"""Find the package's data: the recipes with their presets.

A checkout, also when installed as editable, holds them in top-level folders. Building a wheel (``setup.py``) copies
these folders next to the modules.
"""

from pathlib import Path


def data_folder(name: str) -> Path:
    """The path of a data folder, given its name in the repository, such as ``recipes``."""
    package = Path(__file__).resolve().parent
    installed = package / name
    return installed if installed.is_dir() else package.parents[1] / name
