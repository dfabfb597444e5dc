"""Weights, and what a run keeps running, taken from another run: ``run.start_from``."""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from latentscale.config import Config
from latentscale.distributed.agreement import run_on_rank_zero
from latentscale.errors import UserError
from latentscale.inversion.trained_model import STATISTICS_FILE, model_folder
from latentscale.latents.categories import CategoricalPrior
from latentscale.launching.restarts import restart_count
from latentscale.methods.base import Method
from latentscale.regular_files import file_status
from latentscale.training.checkpoints import list_checkpoints, load_checkpoint
from latentscale.training.state import share_tensors
from latentscale.wording import counted, escaped, shown

_NAMED = 5


def start_from_another_run(config: Config, method: Method, rank: int) -> list[str]:
    """Copy from the run in ``run.start_from`` what has the same name and shape: weights, v, P(C) and the like.

    Rank 0 reads it and sends it to the others. A frozen generator keeps its weights, and P(C) that
    ``method.category_probabilities`` states stays as stated.

    Args:
        config: ``run.start_from`` names the run, ``run.start_weights`` which of its weights.
        method: on its device, with its initial weights, which are overwritten in place.

    Returns:
        Lines about what was taken and what was left out; none on other ranks.

    Raises:
        UserError: on every process: there is no such model, it is this run's own, a tensor is not finite, or nothing
            fits.
    """
    notes = run_on_rank_zero(rank, lambda: _take(config, method))
    share_tensors([tensor for _, tensor in _own(method)])
    return notes or []


def check_start(config: Config, rank: int) -> None:
    """Refuse what a run cannot start from, before anything is written; a run that continues needs it no more.

    Raises:
        UserError: on rank 0: ``run.start_from`` is the run's own folder, or holds no model.
    """
    if rank or not config.run.start_from:
        return
    run, path = Path(config.run.dir), Path(config.run.start_from)
    starts_over = config.run.restart and not restart_count()
    try:
        if path.resolve() in (run.resolve(), (run / "model").resolve()):
            raise UserError(
                "it is this run's own folder: a run continues by itself; give another run, or another run.dir"
            )
        if starts_over or not list_checkpoints(run / "checkpoints"):
            _checkpoint(path) if config.run.start_weights == "raw" else model_folder(path)
    except UserError as error:
        raise UserError(f"{_named(config)}: {error}") from None


@torch.no_grad()
def _take(config: Config, method: Method) -> list[str]:
    named = _named(config)
    try:
        stored = _stored(config)
        for key, tensor in stored.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise UserError(f"its {escaped(key)} is not finite: choose a run or checkpoint whose weights are")
        left, fits = [], False
        for key, tensor in _own(method):
            if reason := _unfit(config, method, key, tensor, stored.get(key)):
                left.append(reason)
                continue
            tensor.copy_(stored.pop(key))
            # a bias of one output fits anywhere
            fits = fits or tensor.dim() > 1
        if not fits:
            raise UserError("nothing in it has the name and shape of anything here: choose a run of such networks")
    except UserError as error:
        raise UserError(f"{named}: {error}") from None
    own = {key for key, _ in _own(method)}
    taken = len(own) - len(left)
    notes = [f"{named}: took {counted(taken, 'tensor')} of {config.run.start_weights} weights"]
    if left:
        notes.append(f"{named}: {counted(len(left), 'tensor')} begin anew: {_some(left)}")
    if unused := [f"{escaped(key)} {_shape(tensor)}" for key, tensor in stored.items() if key not in own]:
        notes.append(f"{named}: {counted(len(unused), 'tensor')} there are not used here: {_some(unused)}")
    return notes


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _unfit(config: Config, method: Method, key: str, own: Tensor, stored: Tensor | None) -> str:
    """Why a tensor begins anew; empty if it is taken."""
    if stored is None:
        return f"{key} {_shape(own)}"
    if stored.shape != own.shape or not stored.is_floating_point():
        return f"{key} {_shape(own)} is {_shape(stored)} there"
    _, name, *_ = key.split("/")
    if isinstance(prior := method.statistics.get(name), CategoricalPrior) and key.startswith("statistic/"):
        if getattr(config.method, "category_probabilities", None):
            return f"{key} is that of method.category_probabilities"
        if any(abs(float(part.double().sum()) - 1) > 1e-3 for part in stored.split(list(prior.sizes))):
            return f"{key} is of other categories there"
    return ""


def _own(method: Method) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the networks that are trained, and of the statistics."""
    for name, network in method.networks.items():
        if not (name == "generator" and method.frozen_generator):
            for key, tensor in network.state_dict().items():
                yield f"network/{name}/{key}", tensor
    for name, statistic in method.statistics.items():
        for key, tensor in statistic.state_dict().items():
            yield f"statistic/{name}/{key}", tensor


def _stored(config: Config) -> dict[str, Tensor]:
    """Every tensor of the other run's networks and statistics, named as in a checkpoint."""
    path = Path(config.run.start_from)
    if config.run.start_weights == "raw":
        tensors = load_checkpoint(_checkpoint(path)).tensors
        return {key: tensor for key, tensor in tensors.items() if key.startswith(("network/", "statistic/"))}
    stored: dict[str, Tensor] = {}
    for file in sorted(model_folder(path).glob("*.safetensors")):
        for key, tensor in _read(file).items():
            name, _, rest = key.partition(".")
            is_statistic = file.name == STATISTICS_FILE
            stored[f"statistic/{name}/{rest}" if is_statistic else f"network/{file.stem}/{key}"] = tensor
    return stored


def _checkpoint(path: Path) -> Path:
    """The last checkpoint of a run."""
    if not (checkpoints := list_checkpoints(path / "checkpoints")):
        raise UserError("it has no checkpoint: give a run's folder, or run.start_weights=averaged")
    return checkpoints[-1]


def _named(config: Config) -> str:
    return f"run.start_from={shown(config.run.start_from)}"


def _read(file: Path) -> dict[str, Tensor]:
    try:
        file_status(file)
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read ({error}), it is damaged: save or copy the model again") from error


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
