"""One of several processes that take steps of DDP phases with a piggybacked vector and record sums and gradients.

``python piggyback.py OUT``: a record of every step to OUT/rank-RANK.json, by precision and accumulation.
"""

import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from latentscale.distributed.ddp import DDPPhase
from latentscale.distributed.engines import DTYPES, make_accelerator
from latentscale.distributed.exiting import exit_process
from latentscale.methods.phase import Batch, Phase, Terms

RANK = int(os.environ.get("RANK", "0"))
PRECISIONS = ("fp32", "fp64")
ACCUMULATIONS = (1, 3)
SIZE = 7
# in float64 one layer is larger than the first bucket; in float32 two layers are
WIDTH, LAYERS = 400, 4
STEPS = ("first", "second", "left", "after one that was left", "none", "after none", "not a number", "last")


class MeanSquare(Phase):
    """The mean square of a network's outputs for the real samples."""

    name = "mean_square"
    network: nn.Module

    def forward(self, batch: Batch) -> Terms:
        return Terms(self.network(batch.real).square().mean(), {}, {}, {})


def piggyback_of(rank: int, step: int, dtype: torch.dtype) -> Tensor:
    """A process's vector in a step: 0.1 · (rank + 1) · (element + 1) + step, with one NaN."""
    piggyback = 0.1 * (rank + 1) * torch.arange(1, SIZE + 1, dtype=dtype) + step
    if STEPS[step] == "not a number" and rank == 1:
        piggyback[2] = float("nan")
    return piggyback


def make_phase(accelerator: Accelerator, network: nn.Module, precision: str, piggyback: Tensor | None) -> DDPPhase:
    phase = MeanSquare({"network": copy.deepcopy(network)}, {})
    optimizer = torch.optim.Adam(phase.parameters(), fused=True)
    return DDPPhase(accelerator, phase, optimizer, precision, piggyback=piggyback)


def worst_difference(phase: DDPPhase, reference: DDPPhase) -> float:
    """Max over parameters of ‖g−r‖∞ / ‖r‖∞ of their gradients; NaN if a gradient has one."""
    differences = []
    for own, other in zip(phase.parameters, reference.parameters, strict=True):
        assert own.grad is not None
        assert other.grad is not None
        differences.append((own.grad - other.grad).abs().max() / other.grad.abs().max())
    return float(torch.stack(differences).max())


def take_steps(accelerator: Accelerator, precision: str, accumulation: int) -> dict[str, Any]:
    """All steps of a phase with a piggybacked vector, and of one without."""
    dtype = DTYPES[precision]
    torch.manual_seed(0)
    layers = [layer for _ in range(LAYERS) for layer in (nn.Linear(WIDTH, WIDTH, dtype=dtype), nn.Tanh())]
    network, sums = nn.Sequential(*layers), torch.zeros(SIZE, dtype=dtype)
    phase = make_phase(accelerator, network, precision, sums)
    reference = make_phase(accelerator, network, precision, None)
    torch.manual_seed(1 + RANK)
    record: dict[str, Any] = {}
    for step, name in enumerate(STEPS):
        reals = [torch.randn(4, WIDTH, dtype=dtype) for _ in range(accumulation)]
        batches = [Batch(real, {}, 1, False) for real in reals]

        def pack(terms: Terms, last: bool, step: int = step, name: str = name) -> Tensor | None:
            # nothing is sent with earlier micro-batches
            return sums.copy_(piggyback_of(RANK, step, dtype)) if last and name != "none" else None

        phase.backward(batches, pack)
        if name == "none":
            sums.fill_(-1)
        if name != "left":
            phase.wait_for_piggyback()
        reference.backward(batches)
        record[name] = {"sums": sums.tolist(), "gradients": worst_difference(phase, reference)}
    logged = phase.wrapped._get_ddp_logging_data()["rebuilt_per_bucket_param_indices"]  # type: ignore[operator]
    carrier = [name for name, _ in phase.wrapped.named_parameters()].index("module.carrier")
    buckets = [[int(index) for index in bucket.split()] for bucket in logged.split(", ")]
    return {"steps": record, "carrier": carrier, "buckets": buckets}


def main() -> None:
    accelerator = make_accelerator(timeout_seconds=60)
    found = {
        f"{precision}-{accumulation}": take_steps(accelerator, precision, accumulation)
        for precision in PRECISIONS
        for accumulation in ACCUMULATIONS
    }
    (Path(sys.argv[1]) / f"rank-{RANK}.json").write_text(json.dumps(found))
    accelerator.end_training()
    exit_process()


if __name__ == "__main__":
    main()
