"""The numbers of a report: means over the steps since the last one, whatever a step reports."""

import math
import random

import pytest
import torch

from latentscale.training.health import Health

CPU = torch.device("cpu")


@pytest.mark.parametrize("steps", [1, 63, 64, 65, 200])
def test_means_over_steps_of_changing_names_and_non_finite_values(steps: int) -> None:
    random.seed(steps)
    health = Health(CPU)
    for _ in range(2):  # a report starts afresh
        seen: dict[str, list[float]] = {"always": [], "seldom": []}
        for step in range(steps):
            values = {"always": random.choice([1.0, -2.5, math.nan, math.inf])}
            if step % 16 == 0:  # a lazy penalty
                values["seldom"] = random.uniform(0, 1)
            health.add({name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()})
            for name, value in values.items():
                seen[name] += [value] if math.isfinite(value) else []
        means = health.join()
        assert means.keys() == seen.keys()
        for name, values_seen in seen.items():
            expected = sum(values_seen) / len(values_seen) if values_seen else math.nan
            assert means[name] == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_the_newest_values_that_are_not_finite_are_named() -> None:
    health = Health(CPU)
    for _ in range(70):
        health.add({"loss": torch.tensor(1.0), "penalty": torch.tensor(math.nan)})
    assert health.nonfinite() == ["penalty"]
    health.add({"loss": torch.tensor(math.inf)})
    assert health.nonfinite() == ["loss"]
