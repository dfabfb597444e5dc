"""Measures what the statistics' all-reduce adds to a step of two processes; run it with ``accelerate launch``.

One training run through the platform's loop. Its steps alternate between arms: with the all-reduce, with it again
(what the measurement itself scatters by), and without it, which only this script can switch. Rank 0 prints one JSON
object.
"""

import argparse
import json
import statistics as numbers
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from cases import CASES
from turns import rounds_of_turns

from latentscale.distributed import statistics
from latentscale.distributed.topology import Topology
from latentscale.methods.registry import METHODS
from latentscale.training.loop import train

ARMS = ["with", "again", "without"]
WARM_UP_STEPS = 3


class SwitchedDistributed:
    """torch.distributed for the statistics; pretends that there is one process while it is off."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.on = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def get_world_size(self) -> int:
        return dist.get_world_size() if self.on else 1


class Alternation:
    """Called once per step, just before the statistics are sent: times the steps and switches the arm.

    Args:
        rounds: counted, after one that is not.
        steps: timed in a turn, after one that is not: the step in which the arm changes.
    """

    def __init__(self, switch: SwitchedDistributed, rounds: int, steps: int) -> None:
        self.switch = switch
        self.steps = steps
        self.seconds: list[dict[str, float]] = []
        self.turns = [(number, arm) for number, order in enumerate(rounds_of_turns(ARMS, rounds + 1)) for arm in order]
        self._asked = 0
        self._began = 0.0

    def __call__(self) -> bool:
        now = time.perf_counter()
        turn, position = divmod(self._asked - WARM_UP_STEPS, self.steps + 1)
        self._asked += 1
        if turn < 0:
            return False
        if position == 0 and turn > 0:
            number, arm = self.turns[turn - 1]
            if len(self.seconds) <= number:
                self.seconds.append(dict.fromkeys(ARMS, 0.0))
            self.seconds[number][arm] += now - self._began
        if turn == len(self.turns):
            self.switch.on = True
            return True
        self.switch.on = self.turns[turn][1] != "without"
        if position == 1:
            self._began = now
        return False

    def results(self) -> dict[str, Any]:
        """Seconds per step by arm, and the relative difference between arms in each round."""
        rounds = self.seconds[1:]
        return {
            "step_seconds": {arm: numbers.median(r[arm] for r in rounds) / (2 * self.steps) for arm in ARMS},
            "added": [r["with"] / r["without"] for r in rounds],
            "again": [r["again"] / r["with"] for r in rounds],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    case = CASES["images32_two_processes"]
    config = case.config(
        "pvdgan",
        options.folder,
        run__dir=options.folder / "run",
        training__batch=options.batch,
        distributed__processes=2,
    )
    switch = SwitchedDistributed(statistics.dist)
    statistics.dist = switch  # type: ignore[assignment]
    alternation = Alternation(switch, options.rounds, case.steps)
    train(config, METHODS["pvdgan"], alternation)
    if Topology.from_environment().rank == 0:
        print(json.dumps(alternation.results()))


if __name__ == "__main__":
    main()
