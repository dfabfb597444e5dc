"""What a step is fed is a function of the step alone: not of blocks, processes, accumulation or where a run began."""

import dataclasses
from pathlib import Path

import pytest
import torch

from latentscale.config import load_config
from latentscale.distributed.streams import StepPlan
from latentscale.latents.draws import uniforms
from latentscale.methods.phase import Batch
from latentscale.methods.pvdgan import PVDGAN
from latentscale.training import feed as feeding
from latentscale.training.checks import plan_run
from latentscale.training.feed import Feed
from latentscale.training.method_building import build_method
from latentscale.training.plan import RunPlan
from launching import overrides

STREAMS, STREAM_BATCH, STEPS = 8, 6, 21


def planned(folder: Path, processes: int, accumulation: int) -> RunPlan:
    arguments = overrides(
        run__dir=folder, training__steps=STEPS, training__batch=STREAMS * STREAM_BATCH, distributed__streams=STREAMS
    )
    plan = plan_run(load_config(PVDGAN.Settings, "pvdgan", {"preset": ""}, arguments), PVDGAN)
    return dataclasses.replace(plan, steps=StepPlan.make(STREAMS * STREAM_BATCH, STREAMS, processes, accumulation))


def by_stream(batch: Batch) -> list[torch.Tensor]:
    """Images and both draws, ``[streams, b, …]``."""
    tensors = [batch.real, batch.draws["discriminator_latent"], batch.draws["generator_latent"]]
    return [tensor.unflatten(0, (-1, batch.streams)).transpose(0, 1) for tensor in tensors]


def fed(plan: RunPlan, start: int) -> list[list[torch.Tensor]]:
    """What all processes are fed in each step from ``start`` on, stream by stream."""
    method = build_method(plan)
    steps: list[list[list[torch.Tensor]]] = [[] for _ in range(start, STEPS)]
    for rank in range(plan.steps.processes):
        with Feed(plan, method, rank, torch.device("cpu"), torch.float64, start) as feed:
            for step in range(start, STEPS):
                batches = feed.fetch(step)
                for batch in batches:
                    assert batch.real.is_contiguous()
                    assert all(draw.is_contiguous() for draw in batch.draws.values())
                steps[step - start] += [by_stream(batch) for batch in batches]
    return [[torch.cat(parts) for parts in zip(*batches, strict=True)] for batches in steps]


@pytest.mark.parametrize(
    ("processes", "accumulation", "block", "start"),
    [(1, 1, 8, 0), (1, 1, 8, 5), (1, 4, 8, 0), (2, 2, 3, 7), (4, 1, 8, 0), (8, 1, 1, 2)],
)
def test_however_a_run_is_laid_out_its_streams_are_fed_the_same(
    processes: int, accumulation: int, block: int, start: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "MOST_BLOCK_STEPS", 1)
    reference = fed(planned(tmp_path, 1, 1), 0)
    monkeypatch.setattr(feeding, "MOST_BLOCK_STEPS", block)
    found = fed(planned(tmp_path, processes, accumulation), start)
    for expected, step in zip(reference[start:], found, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(expected, step, strict=True))


def test_a_streams_draws_are_its_own_numbers(tmp_path: Path) -> None:
    plan = planned(tmp_path, 1, 1)
    draw = build_method(plan).draws()["generator_latent"]
    _, _, found = fed(plan, 0)[3]
    numbers = torch.from_numpy(uniforms(plan.config.run.seed, draw.purpose, 3, 5, STREAM_BATCH * draw.size))
    assert torch.equal(found[5], torch.special.ndtri(numbers.view(STREAM_BATCH, draw.size)))
