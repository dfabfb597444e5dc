"""Where the package's data lie: the recipes with their presets.

A checkout, and an editable install of it, have one copy in top-level folders. The build copies those into the wheel
(``setup.py``), beside the modules.
"""

from pathlib import Path


def data_folder(name: str) -> Path:
    """A folder of data by its name in the repository, such as ``recipes``."""
    package = Path(__file__).resolve().parent
    installed = package / name
    return installed if installed.is_dir() else package.parents[1] / name
