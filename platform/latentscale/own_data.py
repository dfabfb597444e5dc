"""What a recipe does with ``data.path``: shards are found or built, and settings follow from them."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from latentscale.config import Config, given_keys, keys, load_config
from latentscale.config_values import flattened
from latentscale.data.datasets import open_dataset
from latentscale.data.own_images import OwnShards, Report, build_own_images, holds_shards
from latentscale.distributed.topology import Topology
from latentscale.errors import UserError
from latentscale.launching.restarts import restart_count
from latentscale.methods.base import Method
from latentscale.regular_files import read_file
from latentscale.shards.sharded_dataset import ShardedDataset
from latentscale.storage.remote import is_remote
from latentscale.training.automatic_settings import automatic_settings, describe, require_side
from latentscale.training.checkpoints import list_checkpoints
from latentscale.training.readers import storage_options
from latentscale.wording import shown


@dataclass
class OwnData:
    """What follows from ``data.path``.

    Attributes:
        recipe: the recipe's defaults with the settings that follow from the data.
        arguments: the command line with the shards that are used.
        notes: lines to print for the user, the same on every process.
        built: lines about a build, on the process that did it.
    """

    recipe: dict[str, Any]
    arguments: list[str]
    notes: list[str] = field(default_factory=list)
    built: list[str] = field(default_factory=list)


def own_data(
    method: type[Method], recipe: Mapping[str, Any], arguments: Sequence[str], presets: Path, report: Report
) -> OwnData:
    """Find or build the shards that ``data.path`` names, and choose what the command line leaves open.

    A run that is continued keeps what was chosen when it began.

    Raises:
        UserError: a setting is wrong, the data cannot be used, or ``run.dir`` holds a run on other samples.
    """
    given = given_keys(arguments)
    own_keys = {name: value for name, value in recipe.items() if name != "preset"}
    # the shape is known only from the data
    start = {**own_keys, "data.name": "shards", "data.shape": []}
    first = load_config(method.Settings, method.name, start, arguments, presets)
    # a launcher that restarts failed processes repeats the command, and the run must then continue
    starts_over = first.run.restart and not restart_count()
    before = {} if starts_over else _settings_before(Path(first.run.dir))
    if (name := before.get("data.name", "shards")) != "shards":
        raise _other_run(first, f"data.name={shown(name)}")
    path, words = first.data.path, [*arguments, "data.name=shards"]
    chooses = "preset" not in given and not before.get("preset")
    shards = OwnShards(Path(path))
    if not is_remote(path) and not holds_shards(Path(path)):
        if first.data.resolution and chooses and "network.family" not in given:
            require_side(first.data.resolution)
        shards = _built(first, Path(str(before["data.path"])) if before.get("data.path") else None, report)
        path = str(shards.folder)
        words.append(f"data.path={path}")
    dataset = open_dataset("shards", path, "train", storage_options(first) if is_remote(path) else None)
    _refuse_other_samples(first, before, dataset)
    found = OwnData(dict(recipe), words, shards.notes, shards.built)
    if not chooses:
        found.recipe["preset"] = before.get("preset") or recipe.get("preset", "")
        return found
    chosen = automatic_settings(
        dataset.name, dataset.shape, dataset.count, len(dataset.labels), method.name, "network.family" in given
    )
    known = {key.name for key in keys(Config(method=method.Settings()))}
    chosen = {name: before.get(name, value) for name, value in chosen.items() if name in known}
    if not before:
        found.notes.append(describe(dataset.shape, dataset.count, chosen))
    found.recipe = {**chosen, **own_keys}
    return found


def print_notes(found: OwnData) -> None:
    """Print lines about the data: those that all processes have on one of a node."""
    _print([*found.built, *(found.notes if _is_first() else [])])


def _built(first: Config, used: Path | None, report: Report) -> OwnShards:
    path, data = Path(first.data.path), first.data
    # a preset, or data.shape, may say which images it takes
    side = data.shape[-1] if len(data.shape) == 3 else 0

    def waits() -> None:
        if _is_first():
            _print([f"waiting for another process that builds {path} into shards"])

    try:
        return build_own_images(path, data.resolution, used, report, side, waits)
    except KeyboardInterrupt:
        if _is_first():
            _print([f"stopped: the same command continues to build {path} after its last finished shard"])
        raise


def _refuse_other_samples(first: Config, before: Mapping[str, Any], dataset: ShardedDataset) -> None:
    """Refuse settings and data that cannot belong together, before settings are chosen for them.

    Raises:
        UserError: ``data.resolution`` is not that of the shards, or ``run.dir`` holds a run on other samples.
    """
    shape, resolution = list(dataset.shape), first.data.resolution
    if resolution and shape[1:] != [resolution, resolution]:
        raise UserError(
            f"data.resolution={resolution}, but the samples of {dataset.name} are {shape}: it resizes images when they"
            " are built into shards, not shards or a run that has begun: leave it out, or build other shards"
        )
    if (trained := before.get("data.shape") or shape) != shape:
        raise _other_run(first, f"samples of {trained}")


def _other_run(first: Config, found: str) -> UserError:
    return UserError(
        f"run.dir={shown(first.run.dir)} contains a run on {found}, not on data.path={shown(first.data.path)}: give"
        " another run.dir, or run.restart=true to move it aside and start over"
    )


def _settings_before(folder: Path) -> dict[str, Any]:
    """The settings of the run that is continued in a folder, as dotted keys; none where there is no checkpoint."""
    try:
        if not list_checkpoints(folder / "checkpoints"):
            return {}
        content = OmegaConf.to_container(OmegaConf.load(StringIO(read_file(folder / "config.yaml").decode())))
    except Exception:  # whoever continues the run says what is wrong with it
        return {}
    return dict(flattened(content)) if isinstance(content, dict) else {}


def _is_first() -> bool:
    return Topology.from_environment().local_rank == 0


def _print(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"data: {note}", file=sys.stderr, flush=True)
