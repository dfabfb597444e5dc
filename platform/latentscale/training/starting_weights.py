"""Weights, and what a run keeps running, taken from another run: ``run.start_from``."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from latentscale.config import Config
from latentscale.errors import UserError
from latentscale.inversion.trained_model import STATISTICS_FILE, model_folder
from latentscale.methods.base import Method
from latentscale.training.checkpoints import list_checkpoints, load_checkpoint
from latentscale.wording import counted, shown

_NAMED = 5


@torch.no_grad()
def take_starting_weights(config: Config, method: Method) -> list[str]:
    """Copy from the run in ``run.start_from`` what has the same name and shape: weights, v, P(C) and the like.

    Every process reads it. A frozen generator keeps its weights.

    Args:
        config: ``run.start_from`` names the run, ``run.start_weights`` which of its weights.
        method: with its initial weights, which are overwritten in place.

    Returns:
        Lines about what was taken and what was left out.

    Raises:
        UserError: there is no such model, it is this run's own, a tensor is not finite, or nothing fits.
    """
    named = f"run.start_from={shown(config.run.start_from)}"
    try:
        stored = _stored(config, method)
        taken, left, fits = 0, [], False
        for key, tensor in _own(method):
            if key in stored and stored[key].shape == tensor.shape and stored[key].is_floating_point():
                if not torch.isfinite(stored[key]).all():
                    raise UserError(f"its {key} is not finite: choose a run or checkpoint whose weights are")
                tensor.copy_(stored[key])
                taken += 1
                # a bias of one output fits anywhere
                fits = fits or tensor.dim() > 1
            else:
                left.append(f"{key} {_shape(tensor)}" + (f" is {_shape(stored[key])} there" if key in stored else ""))
        if not fits:
            raise UserError("nothing in it has the name and shape of anything here: choose a run of such networks")
    except UserError as error:
        raise UserError(f"{named}: {error}").on_every_process() from None
    notes = [f"{named}: took {counted(taken, 'tensor')} of {config.run.start_weights} weights"]
    if left:
        more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        notes.append(f"{named}: {counted(len(left), 'tensor')} begin anew: {', '.join(left[:_NAMED])}{more}")
    return notes


def _own(method: Method) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the networks that are trained, and of the statistics."""
    for name, network in method.networks.items():
        if not (name == "generator" and method.frozen_generator):
            for key, tensor in network.state_dict(keep_vars=True).items():
                yield f"network/{name}/{key}", tensor
    for name, statistic in method.statistics.items():
        for key, tensor in statistic.state_dict(keep_vars=True).items():
            yield f"statistic/{name}/{key}", tensor


def _stored(config: Config, method: Method) -> Mapping[str, Tensor]:
    path = Path(config.run.start_from)
    if _is_own(path, Path(config.run.dir)):
        raise UserError("it is this run's own folder: a run continues by itself; give another run, or another run.dir")
    if config.run.start_weights == "raw":
        checkpoints = list_checkpoints(path / "checkpoints")
        if not checkpoints:
            raise UserError("it has no checkpoint: give a run's folder, or run.start_weights=averaged")
        return load_checkpoint(checkpoints[-1]).tensors
    folder = model_folder(path)
    stored: dict[str, Tensor] = {}
    for name in method.networks:
        if (file := folder / f"{name}.safetensors").is_file():
            stored |= {f"network/{name}/{key}": tensor for key, tensor in _read(file).items()}
    if (file := folder / STATISTICS_FILE).is_file():
        for key, tensor in _read(file).items():
            name, _, rest = key.partition(".")
            stored[f"statistic/{name}/{rest}"] = tensor
    return stored


def _is_own(path: Path, run: Path) -> bool:
    return path.resolve() in (run.resolve(), (run / "model").resolve())


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read ({error}), it is damaged: save or copy the model again") from error


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
