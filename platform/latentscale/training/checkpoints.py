"""Checkpoints: tensors and their step, complete or absent.

``checkpoints/step-000001000/`` holds ``state.safetensors`` and ``state.json``. It is written under another name,
flushed to the disk and renamed, so that a kill at any moment leaves the previous one intact. It has no state
of random generators or loaders, which are functions of the step.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from latentscale.atomic import new_folder
from latentscale.data.unreadable_samples import Skipped
from latentscale.errors import UserError
from latentscale.regular_files import file_status, read_json

TENSORS, STATE = "state.safetensors", "state.json"
_NAME = re.compile(r"step-(\d{9,})")


@dataclass
class Checkpoint:
    """The contents of a checkpoint.

    Attributes:
        step: steps taken.
        tensors: on the CPU, by name.
        config: the resolved configuration of the run that wrote it.
        identity: the method's name and the fingerprint of the data, which a continued run must share.
        skipped: the samples that the run could not read.
    """

    step: int
    tensors: dict[str, Tensor]
    config: dict[str, Any]
    identity: dict[str, str]
    skipped: list[Skipped] = field(default_factory=list)


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write under another name, flush, rename; then remove all but the newest ``keep``, and what killed runs left."""
    final = folder / f"step-{checkpoint.step:09d}"
    if final.exists():  # the state is a function of the step: this checkpoint would be the same
        return final
    if folder.is_dir():
        for entry in folder.iterdir():
            if entry.name.startswith("."):
                shutil.rmtree(entry)
    state = {"step": checkpoint.step, "identity": checkpoint.identity, "config": checkpoint.config}
    if checkpoint.skipped:
        state["skipped"] = [list(sample) for sample in checkpoint.skipped]
    with new_folder(final) as new:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()},
            new / TENSORS,
        )
        (new / STATE).write_text(json.dumps(state, indent=1))
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(
        (path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=lambda path: int(path.name[5:])
    )


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        UserError: naming the checkpoint, if a file of it is missing or damaged.
    """
    try:
        state: Mapping[str, Any] = read_json(path / STATE)
        if not isinstance(state, dict):
            raise ValueError(f"{STATE} does not hold an object")
        file_status(path / TENSORS)
        tensors = load_file(path / TENSORS)
        skipped = [Skipped(*sample) for sample in state.get("skipped", [])]
        return Checkpoint(int(state["step"]), tensors, dict(state["config"]), dict(state["identity"]), skipped)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"checkpoint {path} cannot be read ({error}): move it away to continue from the previous one"
        ) from None
