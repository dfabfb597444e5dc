"""What a recipe does with ``data.path``: shards are found or built, and settings follow from them."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from latentscale.config import Config, keys, load_config
from latentscale.config_values import flattened
from latentscale.data.datasets import open_dataset
from latentscale.data.own_images import Report, build_own_images, holds_shards
from latentscale.distributed.topology import Topology
from latentscale.methods.base import Method
from latentscale.storage.remote import is_remote
from latentscale.training.automatic_settings import automatic_settings, describe
from latentscale.training.readers import storage_options


@dataclass
class OwnData:
    """What follows from ``data.path``.

    Attributes:
        recipe: the recipe's defaults with the settings that follow from the data.
        arguments: the command line with the shards that are used.
        notes: lines to print for the user.
    """

    recipe: dict[str, Any]
    arguments: list[str]
    notes: list[str] = field(default_factory=list)


def own_data(
    method: type[Method], recipe: Mapping[str, Any], arguments: Sequence[str], presets: Path, report: Report
) -> OwnData:
    """Find or build the shards that ``data.path`` names, and choose what the command line leaves open.

    A run that is continued keeps what was chosen when it began.

    Raises:
        UserError: a setting is wrong, or the data cannot be used.
    """
    given = dict(argument.partition("=")[::2] for argument in arguments)
    own_keys = {name: value for name, value in recipe.items() if name != "preset"}
    # the shape is known only from the data
    start = {**own_keys, "data.name": "shards", "data.shape": []}
    first = load_config(method.Settings, method.name, start, arguments, presets)
    before = {} if first.run.restart else _settings_before(Path(first.run.dir))
    path, words, notes = first.data.path, [*arguments, "data.name=shards"], []
    if not is_remote(path) and not holds_shards(Path(path)):
        used = Path(str(before["data.path"])) if before.get("data.path") else None
        # a preset, or data.shape, may say which images it takes
        side = first.data.resolution or (first.data.shape[-1] if len(first.data.shape) == 3 else 0)
        shards = build_own_images(Path(path), side, used, report)
        path, notes = str(shards.folder), shards.notes
        words.append(f"data.path={path}")
    if "preset" in given:
        return OwnData(dict(recipe), words, notes)
    if before.get("preset"):
        return OwnData({**recipe, "preset": before["preset"]}, words, notes)
    options = storage_options(first) if is_remote(path) else None
    dataset = open_dataset("shards", path, "train", options)
    chosen = automatic_settings(
        dataset.name, dataset.shape, dataset.count, len(dataset.labels), method.name, "network.family" in given
    )
    known = {key.name for key in keys(Config(method=method.Settings()))}
    chosen = {name: before.get(name, value) for name, value in chosen.items() if name in known}
    if not before:
        notes.append(describe(dataset.shape, dataset.count, chosen))
    return OwnData({**chosen, **own_keys}, words, notes)


def print_notes(notes: Sequence[str]) -> None:
    """Print lines about the data, on one process of a node."""
    if Topology.from_environment().local_rank == 0:
        for note in notes:
            print(f"data: {note}", file=sys.stderr, flush=True)


def _settings_before(folder: Path) -> dict[str, Any]:
    """The settings of the run on shards that is already in a folder, as dotted keys; none if there is no such run."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    except Exception:  # whoever continues the run says what is wrong with it
        return {}
    settings = dict(flattened(content)) if isinstance(content, dict) else {}
    # a run on bundled data chose nothing by data of the user's own
    return settings if settings.get("data.name") == "shards" else {}
