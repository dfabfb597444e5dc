"""DeepSpeed as an engine: one `deepspeed.initialize` per phase, for ZeRO 0, 1 and 2.

The phase is called directly, never through DeepSpeed's engine, whose hooks around the forward pass do not work with a
gradient penalty. The engine then runs the backward pass and the step. DeepSpeed clips, scales and skips nothing:
losses are divided here, and the optimizer clips or skips a step on the device, as under DDP.

At ZeRO 1 and 2 DeepSpeed concatenates the parameters of a group, pads them with zeros to equal partitions, one per
process, and lets the torch optimizer step only its process's partition. Gradients and moments are partitioned alike,
and gathered here.
"""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import patch_environment
from torch import Tensor, nn

from latentscale.distributed.phases import AfterForward, DistributedPhase
from latentscale.errors import UserError
from latentscale.methods.phase import Batch, Phase, Terms

# gradients reduced at a time, at ZeRO 1 and 2: 32 MiB, about the size of DDP's buckets
BUCKET_ELEMENTS = 2**23


def make_deepspeed_phase(
    phase: Phase,
    optimizer: torch.optim.Optimizer,
    precision: str,
    device: torch.device,
    compile_backend: str,
    zero: int,
    offload_optimizer: bool,
) -> DistributedPhase:
    """A phase under DeepSpeed; arguments as for `engines.distribute`, already checked."""
    if zero == 0:
        return DeepSpeedPhase(phase, optimizer, precision, device, compile_backend)
    return PartitionedPhase(phase, optimizer, precision, device, compile_backend, zero, offload_optimizer)


class DeepSpeedPhase(DistributedPhase):
    """ZeRO 0: every process has all gradients and moments. Arguments as `DistributedPhase`."""

    def __init__(
        self,
        phase: Phase,
        optimizer: torch.optim.Optimizer,
        precision: str,
        device: torch.device,
        compile_backend: str = "",
        zero_optimization: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(phase, optimizer, precision, device, compile_backend)
        self.engine: Any = _initialize(phase, optimizer, device, {"stage": 0, **(zero_optimization or {})})
        # DeepSpeed clears gradients, or fills them with zeros, before we could check which parameters have one
        self._with_gradient: set[str] = set()
        self._gradient_hooks = [
            parameter.register_post_accumulate_grad_hook(lambda _, name=name: self._with_gradient.add(name))
            for name, parameter in phase.named_parameters()
        ]

    def untrained(self) -> list[str]:
        for hook in self._gradient_hooks:
            hook.remove()
        return [name for name, _ in self.phase.named_parameters() if name not in self._with_gradient]

    def step(self, skip: Tensor, norm: Tensor) -> None:
        self._pass_to_optimizer(skip, norm)
        self.engine.step()

    def _forward_backward(self, batch: Batch, count: int, last: bool, after_forward: AfterForward) -> Terms:
        with self._autocast():
            terms: Terms = self.compiled(batch)
        self._reduce_piggyback(after_forward(terms, last))
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(terms.loss if count == 1 else terms.loss / count, scale_wrt_gas=False)
        return terms


@dataclass
class _Group:
    """Parameters that an optimizer steps together, and this process's partition of them, concatenated."""

    names: list[str]
    parameters: list[nn.Parameter]
    freezable: bool
    partition: Tensor


class PartitionedPhase(DeepSpeedPhase):
    """ZeRO 1 and 2: each process has the moments, and for its step the gradients, of one partition of the parameters.

    Args:
        zero: 1 reduces gradients with the last micro-batch; 2 with each, and keeps only its partition in between.
        offload_optimizer: keep moments and steps on the CPU.
    """

    def __init__(
        self,
        phase: Phase,
        optimizer: torch.optim.Optimizer,
        precision: str,
        device: torch.device,
        compile_backend: str,
        zero: int,
        offload_optimizer: bool,
    ) -> None:
        phase.train_only_owned()
        freezable = _split_freezable(phase, optimizer)
        names = {parameter: name for name, parameter in phase.named_parameters()}
        members: list[list[nn.Parameter]] = [list(group["params"]) for group in optimizer.param_groups]
        settings: dict[str, Any] = {
            "stage": zero,
            "reduce_bucket_size": min(BUCKET_ELEMENTS, sum(parameter.numel() for parameter in phase.parameters())),
            "overlap_comm": False,  # it would wait for the device after every backward pass
        }
        if offload_optimizer:
            settings["offload_optimizer"] = {"device": "cpu", "pin_memory": device.type == "cuda"}
        else:
            settings["compute_grad_norm"] = False  # ours is used; DeepSpeed's would wait for the device
        super().__init__(phase, optimizer, precision, device, compile_backend, settings)
        self.offloads = offload_optimizer
        self._partitioned: Any = self.engine.optimizer
        self._frozen = False
        self._groups = [
            _Group([names[parameter] for parameter in parameters], parameters, can_freeze, group["params"][0])
            for parameters, group, can_freeze in zip(members, optimizer.param_groups, freezable, strict=True)
        ]
        self._check_layout()
        self._frozen_gradients: list[tuple[Tensor, Tensor | None]] = []
        optimizer.register_step_pre_hook(self._remove_frozen_gradients)
        optimizer.register_step_post_hook(self._restore_frozen_gradients)

    def gradient_norm(self) -> Tensor:
        moving = [index for index, group in enumerate(self._groups) if not self._is_frozen(group)]
        if self.offloads:
            # the device may still be copying them
            self._partitioned._wait_for_offload_copies()
            pieces: list[Any] = [self._groups[index].partition.grad for index in moving]
        else:
            pieces = [piece for index in moving for piece in self._partitioned.averaged_gradients[index]]
        square = torch.stack(torch._foreach_norm(pieces)).to(self.device, torch.float64).square().sum()
        dist.all_reduce(square)
        return square.sqrt().to(torch.float32)

    def drop_frozen_gradients(self, schedule: Mapping[str, float]) -> None:
        self._frozen = self.phase.frozen_this_step(schedule)

    def step(self, skip: Tensor, norm: Tensor) -> None:
        if self.offloads:
            # DeepSpeed would read each parameter's norm, and skip the step itself if one is not finite
            self._partitioned.norm_for_param_grads.clear()
            skip, norm = skip.cpu(), norm.cpu()
        super().step(skip, norm)

    def moments(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for group in self._groups:
            # in the same order on every process, since each is gathered by a collective
            for kind, value in sorted(self.optimizer.state.get(group.partition, {}).items()):
                if value.dim() == 0:
                    found |= {f"{kind}/{name}": value.clone() for name in group.names}
                elif (whole := self._gather(value)) is not None:
                    found |= {
                        f"{kind}/{name}": each for name, each in zip(group.names, _cut(whole, group), strict=True)
                    }
        return found

    def load_moments(self, moments: Mapping[str, Tensor]) -> None:
        self._partitioned.refresh_fp32_params()
        kinds = sorted({key.partition("/")[0] for key in moments})
        for group in self._groups:
            if all(f"step/{name}" not in moments for name in group.names):
                continue
            state = {}
            for kind in kinds:
                values = [moments[f"{kind}/{name}"] for name in group.names]
                if values[0].dim() == 0:
                    if any(not torch.equal(value, values[0]) for value in values):
                        raise UserError(
                            f"the checkpoint's optimizer took more steps for some parameters of the {self.phase.name}"
                            " phase than for others, which ZeRO 1 and 2 do not support: continue with"
                            " distributed.zero=0 or distributed.engine=ddp"
                        )
                    state[kind] = values[0].clone().to(group.partition.device)
                else:
                    state[kind] = self._own_partition(values, group)
            self.optimizer.state[group.partition] = state

    def _is_frozen(self, group: _Group) -> bool:
        return group.freezable and self._frozen

    def _remove_frozen_gradients(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """DeepSpeed steps one group at a time, and leaves one without gradient and its moments unchanged."""
        stepping = {id(partition) for group in optimizer.param_groups for partition in group["params"]}
        for group in self._groups:
            if self._is_frozen(group) and id(group.partition) in stepping:
                self._frozen_gradients.append((group.partition, group.partition.grad))
                group.partition.grad = None

    def _restore_frozen_gradients(self, *_: Any) -> None:
        """Offloaded gradients are written into the same tensor in every step."""
        for partition, gradient in self._frozen_gradients:
            partition.grad = gradient
        self._frozen_gradients.clear()

    def _own_partition(self, values: Sequence[Tensor], group: _Group) -> Tensor:
        """This process's partition of concatenated tensors, padded with zeros."""
        whole = torch.cat([value.reshape(-1) for value in values])
        size = group.partition.numel()
        own = whole[dist.get_rank() * size :][:size]
        partition = torch.zeros_like(group.partition, requires_grad=False)
        partition[: len(own)] = own
        return partition

    def _gather(self, partition: Tensor) -> Tensor | None:
        """All processes' partitions, concatenated on rank 0's CPU; None on other ranks."""
        partition = partition.to(self.device)
        partitions = (
            [torch.empty_like(partition) for _ in range(dist.get_world_size())] if dist.get_rank() == 0 else None
        )
        dist.gather(partition, partitions)
        return None if partitions is None else torch.cat([each.cpu() for each in partitions])

    def _check_layout(self) -> None:
        """Check the layout described at the top of this file, which DeepSpeed does not guarantee."""
        for group in self._groups:
            own = self._own_partition([parameter.detach() for parameter in group.parameters], group)
            if not torch.equal(own, group.partition.detach()):
                raise RuntimeError(
                    f"this version of DeepSpeed partitions the {self.phase.name} phase differently from 0.19"
                )


def _cut(whole: Tensor, group: _Group) -> list[Tensor]:
    sizes = [parameter.numel() for parameter in group.parameters]
    pieces = whole[: sum(sizes)].split(sizes)
    return [piece.view(parameter.shape) for piece, parameter in zip(pieces, group.parameters, strict=True)]


def _split_freezable(phase: Phase, optimizer: torch.optim.Optimizer) -> list[bool]:
    """Split groups into parameters that can be frozen and the others, because DeepSpeed steps a group as a whole.

    Returns:
        For each group, whether its parameters can be frozen.
    """
    freezable = set(phase.freezable())
    groups, can_freeze = [], []
    for group in optimizer.param_groups:
        for freezes in (False, True):
            if chosen := [parameter for parameter in group["params"] if (parameter in freezable) == freezes]:
                groups.append({**group, "params": chosen})
                can_freeze.append(freezes)
    optimizer.param_groups[:] = groups
    return can_freeze


def _initialize(
    phase: Phase, optimizer: torch.optim.Optimizer, device: torch.device, zero_optimization: Mapping[str, Any]
) -> Any:
    """A DeepSpeed engine over the phase's own parameters, on the existing process group.

    DeepSpeed needs a group even for a single process, which then creates it.
    """
    deepspeed = _import(device)
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    # DeepSpeed would copy the group without its timeout, and keep the copy after the group is destroyed
    deepspeed.utils.groups._WORLD_GROUP = dist.group.WORLD
    config = {
        "train_micro_batch_size_per_gpu": 1,  # unused, but required
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "timers": {"throughput": {"enabled": False}},
        "zero_optimization": dict(zero_optimization),
    }
    # in a separate module, so that DeepSpeed's hooks around forward are never on the phase
    holder = nn.ModuleDict({"phase": phase})
    with patch_environment(LOCAL_RANK=os.environ.get("LOCAL_RANK", "0")), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine, *_ = deepspeed.initialize(model=holder, optimizer=optimizer, config=config)
    return engine


def _import(device: torch.device) -> Any:
    """DeepSpeed, logging only errors, without the extension that it would compile for minutes on the CPU."""
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed

    # DeepSpeed calls it by its old name in every step
    warnings.filterwarnings("ignore", "`torch.distributed.all_gather_into_tensor` is deprecated", FutureWarning)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    return deepspeed
