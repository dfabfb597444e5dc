"""All that a step changes, by name: weights, their average, optimizer moments and running statistics."""

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from latentscale.distributed.phases import DistributedPhase
from latentscale.errors import UserError
from latentscale.methods.base import Method
from latentscale.training.ema import WeightAverage

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class TrainingState:
    """Names and tensors of a run's state; the tensors are the live ones.

    Names: ``network/generator/…``, ``average/generator/…``, ``statistic/variance/…`` and
    ``optimizer/discriminator/exp_avg/…``.
    """

    def __init__(self, method: Method, average: WeightAverage, phases: Sequence[DistributedPhase]) -> None:
        self._phases = phases
        self._modules: dict[str, nn.Module] = {}
        for name, network in method.networks.items():
            self._modules[f"network/{name}"] = network
            self._modules[f"average/{name}"] = average.networks[name]
        for name, statistic in method.statistics.items():
            self._modules[f"statistic/{name}"] = statistic

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, for a checkpoint; complete on rank 0 whatever the engine.

        All processes must call it at the same time, because an engine may have to gather what they hold.
        """
        found = {f"{prefix}/{name}": tensor for prefix, name, tensor in self._module_tensors()}
        for phase in self._phases:
            found |= {f"optimizer/{phase.phase.name}/{key}": value for key, value in phase.moments().items()}
        return found

    def replicated(self) -> list[Tensor]:
        """The tensors that must be the same on every process, bit for bit: all but the optimizers' moments."""
        return [tensor for _, _, tensor in self._module_tensors()]

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load a checkpoint's tensors.

        Raises:
            UserError: if a name or a shape differs, so that nothing silently keeps its initial value.
        """
        used = set()
        for prefix, name, tensor in self._module_tensors():
            key = f"{prefix}/{name}"
            if key not in tensors or tensors[key].shape != tensor.shape:
                raise UserError(f"the checkpoint does not fit this run: {key} is missing or has another shape")
            _require_numbers(key, tensors[key], tensor.dtype)
            tensor.copy_(tensors[key])
            used.add(key)
        for phase in self._phases:
            moments: dict[str, Tensor] = {}
            for name, parameter in phase.phase.named_parameters():
                keys = {f"{kind}/{name}": f"optimizer/{phase.phase.name}/{kind}/{name}" for kind in MOMENTS}
                there = {own: tensors[key] for own, key in keys.items() if key in tensors}
                if not there and any(parameter is freezable for freezable in phase.phase.freezable()):
                    continue
                if missing := sorted(set(keys) - set(there)):
                    raise UserError(f"the checkpoint does not fit this run: {keys[missing[0]]} is missing")
                for own, moment in there.items():
                    if not own.startswith("step/") and moment.shape != parameter.shape:
                        raise UserError(f"the checkpoint does not fit this run: {keys[own]} has another shape")
                    types = (torch.float32, torch.float64) if own.startswith("step/") else (parameter.dtype,)
                    _require_numbers(keys[own], moment, *types)
                moments |= there
                used.update(keys[own] for own in there)
            phase.load_moments(moments)
        if left := sorted(set(tensors) - used):
            raise UserError(f"the checkpoint does not fit this run: it has an unexpected tensor {left[0]}")

    def _module_tensors(self) -> list[tuple[str, str, Tensor]]:
        return [
            (prefix, name, tensor)
            for prefix, module in self._modules.items()
            for name, tensor in module.state_dict().items()
        ]


def _require_numbers(key: str, tensor: Tensor, *types: torch.dtype) -> None:
    """Refuse a tensor of another type, which the optimizer could not use, and one that is not finite."""
    if tensor.dtype not in types:
        found, wanted = (str(dtype).removeprefix("torch.") for dtype in (tensor.dtype, types[0]))
        raise UserError(f"the checkpoint does not fit this run: {key} holds {found}, not {wanted}")
    if not torch.isfinite(tensor).all():
        raise UserError(
            f"the checkpoint's {key} is not finite: move the checkpoint away to continue from the previous one"
        )


@torch.no_grad()
def share_tensors(tensors: Sequence[Tensor]) -> None:
    """Overwrite every process's tensors with those of rank 0."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def broadcast_tensors(tensors: Mapping[str, Tensor] | None, device: torch.device) -> dict[str, Tensor]:
    """Send rank 0's tensors to every process, one after the other; ``tensors`` is None on the other ranks."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return dict(tensors or {})
    layout = [[(name, tensor.shape, tensor.dtype) for name, tensor in (tensors or {}).items()]]
    dist.broadcast_object_list(layout, src=0)
    received = {}
    for name, shape, dtype in layout[0]:
        value = tensors[name].to(device) if tensors else torch.empty(shape, dtype=dtype, device=device)
        dist.broadcast(value, src=0)
        received[name] = value
    return received
