"""Trains under torch's profiler and records every collective with its number of elements; started by a launcher.

``collectives.py OUT METHOD RUNS.json``: RUNS.json lists ``[name, extra, arguments]`` of runs, one after the other; with
``extra`` every step makes one more all-reduce. Those of a run go to OUT/NAME/rank-RANK.json.
"""

import json
import math
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.autograd.profiler import profile

from latentscale.config import load_config
from latentscale.distributed.engines import make_accelerator
from latentscale.distributed.exiting import exit_process
from latentscale.methods.registry import METHODS
from latentscale.training.loop import train

PRESETS = Path(__file__).resolve().parents[2] / "recipes" / "presets"


def count(method_name: str, extra: bool, arguments: list[str]) -> list[tuple[str, int]]:
    method = METHODS[method_name]
    config = load_config(method.Settings, method.name, {"preset": "digits8"}, arguments, PRESETS)

    def once_a_step() -> bool:
        if extra:
            dist.all_reduce(torch.zeros(()))
        return False

    with profile(record_shapes=True) as profiler:
        train(config, method, once_a_step)
    # a few hundred of a hundred thousand events matter: torch.profiler would first create objects for all
    return [
        (event.name(), sum(math.prod(shape) for shape in event.shapes()))
        for event in profiler.kineto_results.events()
        if event.name().startswith("gloo:")
    ]


def main() -> None:
    out, method = Path(sys.argv[1]), sys.argv[2]
    accelerator = make_accelerator(timeout_seconds=300)  # one process group for all runs
    for name, extra, arguments in json.loads(Path(sys.argv[3]).read_text()):
        found = count(method, extra, arguments)
        folder = out / name
        folder.mkdir(exist_ok=True)
        (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))
    accelerator.end_training()
    exit_process()


if __name__ == "__main__":
    main()
