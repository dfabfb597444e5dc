"""The fused statistics: pooling by sample counts, skipping, and flags read one step late."""

import pytest
import torch

from latentscale.distributed.statistics import FusedStatistics, LateFlags
from latentscale.latents.scale import LatentScale

CPU = torch.device("cpu")


@pytest.mark.slow
def test_phases_pool_as_samples() -> None:
    scale = LatentScale(2, start=1.0, decay=0.9).double()
    fused = FusedStatistics({"variance": scale}, CPU, torch.float64)
    fused.observe({"variance": torch.tensor([[1.0, 2.0], [3.0, 0.0]], dtype=torch.float64)})  # b = 2
    fused.observe({"variance": torch.tensor([[5.0, 4.0]], dtype=torch.float64)})  # b / 2
    fused.pack(stop=False)
    stop, _ = fused.finish(torch.tensor(1.0))
    # (1 + 9 + 25) / 3 and (4 + 0 + 16) / 3: three samples, one weight each, whichever phase saw them
    expected = torch.tensor([0.9 + 0.1 * 35 / 3, 0.9 + 0.1 * 20 / 3], dtype=torch.float64)
    torch.testing.assert_close(scale.variance, expected, rtol=1e-15, atol=0)
    assert stop == 0


@pytest.mark.slow
def test_a_skipped_step_leaves_nothing_behind() -> None:
    scale = LatentScale(1, start=0.5, decay=0.9)
    fused = FusedStatistics({"variance": scale}, CPU, torch.float32)
    fused.observe({"variance": torch.tensor([[float("nan")]])})
    fused.pack(stop=True)
    assert fused.finish(torch.tensor(0.0)).tolist() == [1, 0]
    assert scale.variance.item() == 0.5
    fused.observe({"variance": torch.tensor([[1.0]])})
    fused.pack(stop=False)
    assert fused.finish(torch.tensor(1.0)).tolist() == [0, 0]
    torch.testing.assert_close(scale.variance, torch.tensor([0.9 * 0.5 + 0.1]))


def test_flags_are_read_one_step_late() -> None:
    flags = LateFlags(1, CPU)
    seen = []
    for value in range(4):
        flags.put(torch.tensor([float(value)]))
        seen.append(flags.previous())
    assert seen == [None, [0.0], [1.0], [2.0]]
