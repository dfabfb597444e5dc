"""What a run trains: networks, their phases under an engine, averages and statistics, as a checkpoint left them."""

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentscale.distributed.engines import DTYPES, distribute
from latentscale.distributed.phases import DistributedPhase
from latentscale.distributed.statistics import FusedStatistics
from latentscale.methods.base import Method
from latentscale.training.ema import WeightAverage
from latentscale.training.method_building import build_method
from latentscale.training.optimizers import LearningRates, make_optimizer
from latentscale.training.plan import RunPlan
from latentscale.training.starting_weights import start_from_another_run
from latentscale.training.state import TrainingState, broadcast_tensors, share_tensors


@dataclass(frozen=True)
class Components:
    """All that a step changes.

    Attributes:
        phases: in the order of a step; the last one's gradients carry the statistics.
        rates: the learning rates of all phases.
        state: the tensors of all of these by name, for checkpoints.
        dtype: of networks and batches.
        sums_dtype: of statistics and their sums; never below float32.
    """

    method: Method
    phases: list[DistributedPhase]
    rates: LearningRates
    average: WeightAverage
    statistics: FusedStatistics
    state: TrainingState
    dtype: torch.dtype
    sums_dtype: torch.dtype


def build_components(plan: RunPlan, accelerator: Any, resumes: bool, tensors: dict[str, Tensor] | None) -> Components:
    """Networks on their device, in the run's precision, under its engine.

    Args:
        resumes: whether there is a checkpoint, on every process.
        tensors: the checkpoint's, on rank 0, which sends them to the others; cleared once they are loaded.

    Raises:
        UserError: on every process, if the checkpoint does not fit the run, or there is nothing to start from.
    """
    config, device = plan.config, accelerator.device
    training, distributed = config.training, config.distributed
    dtype = DTYPES[training.precision]
    method = build_method(plan)
    for network in method.networks.values():
        network.to(device, dtype)
    sums_dtype = torch.float64 if training.precision == "fp64" else torch.float32
    for statistic in method.statistics.values():
        statistic.to(device, sums_dtype)
    if config.run.start_from and not resumes:
        for note in start_from_another_run(config, method, plan.topology.rank):
            print(note, file=sys.stderr, flush=True)
    statistics = FusedStatistics(method.statistics, device, sums_dtype)
    average = WeightAverage(method.networks, training.ema_decay, method.unaveraged)
    phases = [
        distribute(
            accelerator,
            phase,
            make_optimizer(config.optimizer, phase),
            training.precision,
            training.compile,
            engine=distributed.engine,
            zero=distributed.zero,
            offload_optimizer=distributed.offload_optimizer,
            piggyback=statistics.buffer if phase is method.phases[-1] else None,
        )
        for phase in method.phases
    ]
    for phase in phases:
        phase.clip_norm = config.optimizer.gradient_clipping
    rates = LearningRates(config.optimizer, phases, plan.steps.batch, plan.dataset.count)
    state = TrainingState(method, average, phases)
    if resumes:
        state.load(broadcast_tensors(tensors, device))
        if tensors:
            tensors.clear()
    else:
        # processors may differ in the last bit of a quantile, and averages would keep the difference for ever
        share_tensors(state.replicated())
    return Components(method, phases, rates, average, statistics, state, dtype, sums_dtype)
