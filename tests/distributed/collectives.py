"""Trains under torch's profiler and writes down every collective with its elements; started by a launcher.

``collectives.py OUT METHOD EXTRA key=value …``: with EXTRA 1 every step makes one more all-reduce.
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
from latentscale.methods.registry import METHODS
from latentscale.training.loop import train

PRESETS = Path(__file__).resolve().parents[2] / "recipes" / "presets"


def main() -> None:
    out, method, extra, arguments = Path(sys.argv[1]), METHODS[sys.argv[2]], sys.argv[3] == "1", sys.argv[4:]
    config = load_config(method.Settings, method.name, {"preset": "digits8"}, arguments, PRESETS)

    def once_a_step() -> bool:
        if extra:
            dist.all_reduce(torch.zeros(()))
        return False

    with profile(record_shapes=True) as profiler:
        train(config, method, once_a_step)
    # of a hundred thousand events a few hundred matter: torch.profiler would first make objects of all
    found = [
        (event.name(), sum(math.prod(shape) for shape in event.shapes()))
        for event in profiler.kineto_results.events()
        if event.name().startswith("gloo:")
    ]
    (out / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
