"""The memory of a run: what it takes, about and at least; refused where there is less. The CPU's allocator."""

import ctypes
import math
import os
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import psutil
import torch

from latentscale.config import Config, keys
from latentscale.data.memory_cache import MemoryCachedReader
from latentscale.decoding.sample_arrays import sample_bytes
from latentscale.distributed.topology import uses_gpu
from latentscale.environment import integer_from_environment
from latentscale.errors import UserError
from latentscale.machine_memory import bytes_in_words, machine_memory
from latentscale.networks.factory import block_widths
from latentscale.training.method_building import network_sizes
from latentscale.training.plan import ModelPlan, RunPlan
from latentscale.training.step_memory import step_bytes
from latentscale.wording import shown

# mallopt's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD; 32 MiB is the most that it takes for the latter
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# of a decoding process, without the pages that it shares with the others
_WORKER_BYTES = 20 * 2**20
# measured on CPUs: oneDNN and the allocator take from a fifth to nine tenths of a step's tensors besides
_WORKSPACE = 1.6
# measured: autocast keeps copies of what it casts
_BF16 = 0.8
_COUNTABLE_BYTES = 2**50
# weights, their average, their gradients and two moments
_STATE_COPIES = 5


class Need(NamedTuple):
    """What one thing of a run needs at least.

    Attributes:
        key: the setting that it grows with; ``network`` stands for those that size the networks.
        size_bytes: in each process that has it.
        on_device: whether that is memory of the device that trains, rather than of the machine.
        passing: whether it is held only during a step or an evaluation, which need not coincide.
        everywhere: whether every process has it, rather than rank 0 alone.
    """

    key: str
    size_bytes: int
    on_device: bool
    passing: bool = False
    everywhere: bool = True


def least_memory(plan: ModelPlan) -> list[Need]:
    """What a process of a run needs at least, by setting; a run takes more, but none takes less.

    Counted are weights with their moments and average; a micro-batch with one feature map per block of both networks;
    batches that are read ahead; decoding processes; and the draws of an evaluation.
    """
    config, steps = plan.config, plan.steps
    element = 8 if config.training.precision == "fp64" else 4
    sizes = network_sizes(plan)
    frozen = sizes.pop("generator") if plan.method.frozen_generator else 0
    # weights and their moving average; two moments, unless DeepSpeed may partition them
    copies = 4 if config.distributed.engine == "ddp" else 2
    parameters = copies * sum(sizes.values()) - sum(sizes[name] for name in plan.method.unaveraged if name in sizes)
    sample = sample_bytes(plan.shape)
    # draws are made in float64, categories as one-hots of at least four bytes
    ahead = config.data.prefetch_steps * steps.process_batch * (sample + plan.spec.latent_dim * element)
    evaluated = config.evaluation.images * (plan.spec.latent_dim * 8 + plan.spec.category_dim * 4)
    if isinstance(plan, RunPlan):
        evaluated += min(config.evaluation.images, plan.held_out.count) * sample
    activation = 2 if config.training.precision == "bf16" else element
    return [
        Need("network", (parameters + frozen) * element, True),
        Need("training.batch", steps.microbatch * _activations(plan) * activation, True, passing=True),
        Need("data.prefetch_steps", ahead, False),
        Need("data.workers", config.data.workers * _WORKER_BYTES, False),
        Need("evaluation.images", evaluated, False, passing=True, everywhere=False),
    ]


def require_memory(plan: ModelPlan) -> None:
    """Refuse a run that needs more memory than there is, before anything is allocated.

    Raises:
        UserError: naming the setting that needs most of it, and about how much.
    """
    needs = least_memory(plan)
    processes = integer_from_environment("LOCAL_WORLD_SIZE", 1, minimum=1, maximum=2**20)
    if uses_gpu():
        _refuse(plan, [need for need in needs if need.on_device], _gpu_memory(plan), 1, "the GPU")
        needs = [need for need in needs if not need.on_device]
    _refuse(plan, needs, machine_memory(processes), processes, "this machine")


def about_memory(plan: ModelPlan) -> list[Need]:
    """What a process of a run takes at its peak, by what takes it: an estimate, of which tests state how good it is.

    Counted are this process as it is now, with Python and its libraries; weights with moments, averages, gradients and
    the copies of a checkpoint that is being written; the tensors of a step at its peak, with what convolutions take
    for their work; and images that are read ahead, remembered and evaluated.
    """
    config, least = plan.config, {need.key: need for need in least_memory(plan)}
    # torch counts no sizes beyond 2^63
    countable = least["training.batch"].size_bytes < _COUNTABLE_BYTES
    step = step_bytes(plan) if countable else least["training.batch"].size_bytes
    if countable and config.training.precision == "bf16":
        step = int(_BF16 * step)
    element = 8 if config.training.precision == "fp64" else 4
    weights = element * sum(network_sizes(plan).values())
    images = sum(least[key].size_bytes for key in ("data.prefetch_steps", "data.workers", "evaluation.images"))
    if isinstance(plan, RunPlan) and MemoryCachedReader.fits(plan.dataset.count, plan.shape):
        images += plan.dataset.count * sample_bytes(plan.shape)
    return [
        Need("a step", int(_WORKSPACE * step), True),
        Need("weights with moments, averages and gradients", _STATE_COPIES * weights, True),
        Need("a checkpoint that is being written", (_STATE_COPIES - 1) * weights, False),
        Need("images", images, False),
        Need("Python and its libraries", psutil.Process().memory_info().rss, False),
    ]


def memory_in_words(plan: ModelPlan) -> str:
    """What a process of the run takes, about, and what there is, in a line."""
    needs = about_memory(plan)
    parts = ", ".join(f"{bytes_in_words(need.size_bytes)} for {need.key}" for need in needs)
    text = f"memory: about {bytes_in_words(sum(need.size_bytes for need in needs))} in each process ({parts})"
    if uses_gpu():
        on_device = bytes_in_words(sum(need.size_bytes for need in needs if need.on_device))
        text += f"; {on_device} of it on a GPU of {bytes_in_words(_gpu_memory(plan))}"
    return f"{text}; this machine has {bytes_in_words(machine_memory())}"


def _gpu_memory(plan: ModelPlan) -> int:
    number = plan.topology.local_rank % torch.cuda.device_count()
    return int(torch.cuda.get_device_properties(number).total_memory)


def _refuse(plan: ModelPlan, needs: list[Need], available: int, processes: int, where: str) -> None:
    if _least_together(needs, processes) <= available:
        return
    most = max(needs, key=lambda need: need.size_bytes)
    key = _widest(plan) if most.key == "network" else most.key
    value = _values(plan.config)[key]
    each = f" in each of {processes} processes" if processes > 1 else ""
    remedy = ", or raise training.accumulation" if key == "training.batch" else ""
    raise UserError(
        f"{key}={shown(value)} needs at least about {bytes_in_words(most.size_bytes)} of memory{each}, and {where} has"
        f" {bytes_in_words(available)}: lower it{remedy}"
    )


def _least_together(needs: list[Need], processes: int) -> int:
    """Bytes that all processes need at once."""
    lasting, passing = 0, [0]
    for need in needs:
        size = need.size_bytes * (processes if need.everywhere else 1)
        if need.passing:
            passing.append(size)
        else:
            lasting += size
    return lasting + max(passing)


def _activations(plan: ModelPlan) -> int:
    """Elements of one sample and of one feature map per block in both networks."""
    settings, shape = plan.config.network, plan.shape
    if settings.family == "mlp":
        return math.prod(shape) + 2 * sum(settings.widths)
    widths = block_widths(settings, shape)
    return math.prod(shape) + 2 * sum(width * (shape[-1] >> place) ** 2 for place, width in enumerate(widths))


def _values(config: Config) -> dict[str, Any]:
    return {key.name: key.value for key in keys(config)}


def _widest(plan: ModelPlan) -> str:
    """The setting that the networks have most of their parameters from: halving it saves most."""
    found = []
    for key, value in _values(plan.config).items():
        section, _, name = key.rpartition(".")
        if section not in ("network", "latent") or isinstance(value, bool | float | str) or not value:
            continue
        numbers = value if isinstance(value, list) else [value]
        half = [max(1, each // 2) for each in numbers]
        changed = replace(getattr(plan.config, section), **{name: half if isinstance(value, list) else half[0]})
        config = replace(plan.config, **{section: changed})
        spec = replace(plan.spec, latent_dim=config.latent.dim)
        if plan.method.categorical and config.latent.categories:
            spec = replace(spec, categories=tuple(config.latent.categories))
        # where settings belong together, such as categories and their probabilities, half of one fits nothing
        with suppress(UserError):
            left = sum(network_sizes(replace(plan, config=config, spec=spec)).values())
            found.append((left, max(numbers), key))
    # the sides of a matrix save as much: of those, the longest
    least = min(found)[0]
    return max((number, key) for left, number, key in found if left <= 1.1 * least)[1]


def keep_freed_memory() -> None:
    """Make glibc keep the memory that a step frees for the next one, unless the environment sets this.

    By default glibc returns large blocks and the top of its heap to the system. A step on the CPU then spends up to a
    tenth of its time in having the same pages zeroed and mapped again.
    """
    if sys.platform != "linux" or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return
    with suppress(AttributeError):  # musl has no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_MMAP_THRESHOLD, 32 * 2**20)
