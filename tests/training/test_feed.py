"""What a step is fed is a function of the step alone: not of blocks, processes, accumulation or where a run began."""

from pathlib import Path

import pytest
import torch

from latentscale.config import load_config
from latentscale.distributed.streams import StepPlan
from latentscale.latents.draws import uniforms
from latentscale.methods.phase import Batch
from latentscale.methods.pvdgan import PVDGAN
from latentscale.training import feed as feeding
from latentscale.training.feed import Feed
from latentscale.training.prepare import Preparation, prepare
from launching import overrides

STREAMS, STREAM_BATCH, STEPS = 8, 6, 21


def preparation(folder: Path, processes: int, accumulation: int) -> Preparation:
    arguments = overrides(
        run__dir=folder, training__steps=STEPS, training__batch=STREAMS * STREAM_BATCH, distributed__streams=STREAMS
    )
    made = prepare(load_config(PVDGAN.Settings, "pvdgan", {"preset": ""}, arguments), PVDGAN)
    made.plan = StepPlan.make(STREAMS * STREAM_BATCH, STREAMS, processes, accumulation)
    return made


def by_stream(batch: Batch) -> list[torch.Tensor]:
    """Images and both draws, ``[streams, b, …]``."""
    tensors = [batch.real, batch.draws["discriminator_latent"], batch.draws["generator_latent"]]
    return [tensor.unflatten(0, (-1, batch.streams)).transpose(0, 1) for tensor in tensors]


def fed(made: Preparation, start: int) -> list[list[torch.Tensor]]:
    """What all processes are fed in each step from ``start`` on, stream by stream."""
    method = made.build_method()
    steps: list[list[list[torch.Tensor]]] = [[] for _ in range(start, STEPS)]
    for rank in range(made.plan.processes):
        with Feed(made, method, rank, torch.device("cpu"), torch.float64, start) as feed:
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
    reference = fed(preparation(tmp_path, 1, 1), 0)
    monkeypatch.setattr(feeding, "MOST_BLOCK_STEPS", block)
    found = fed(preparation(tmp_path, processes, accumulation), start)
    for expected, step in zip(reference[start:], found, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(expected, step, strict=True))


def test_a_streams_draws_are_its_own_numbers(tmp_path: Path) -> None:
    made = preparation(tmp_path, 1, 1)
    draw = made.build_method().draws()["generator_latent"]
    _, _, found = fed(made, 0)[3]
    numbers = torch.from_numpy(uniforms(made.config.run.seed, draw.purpose, 3, 5, STREAM_BATCH * draw.size))
    assert torch.equal(found[5], torch.special.ndtri(numbers.view(STREAM_BATCH, draw.size)))
