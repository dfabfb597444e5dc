"""Trains PVDGAN and DLSGAN with one accumulation after the other; started on any number of processes.

``python every_pair.py FOLDER ACCUMULATION[,ACCUMULATION…]`` or through ``accelerate launch``; runs go to
FOLDER/METHOD-ACCUMULATION.
"""

import sys
from pathlib import Path

from latentscale.config import load_config
from latentscale.distributed.engines import make_accelerator
from latentscale.distributed.exiting import exit_process
from latentscale.methods.registry import METHODS
from latentscale.training.loop import train
from launching import ROOT, overrides

TRAINED = ("pvdgan", "dlsgan")
STEPS = 6


def main() -> None:
    folder, accumulations = Path(sys.argv[1]), sys.argv[2].split(",")
    accelerator = make_accelerator(timeout_seconds=300)  # one process group for all runs
    for accumulation in accumulations:
        for name in TRAINED:
            kind = METHODS[name]
            arguments = overrides(
                run__dir=folder / f"{name}-{accumulation}", training__steps=STEPS, training__accumulation=accumulation
            )
            config = load_config(kind.Settings, name, {"preset": "digits8"}, arguments, ROOT / "recipes" / "presets")
            train(config, kind)
    accelerator.end_training()
    exit_process()


if __name__ == "__main__":
    main()
