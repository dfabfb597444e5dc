"""Trains several runs one after the other with one launch of any number of processes.

``python several_runs.py RUNS.json`` or through ``accelerate launch``; RUNS.json lists ``{"method", "preset",
"settings", "environment", "cluster_points"}``, the last being how many points data.name=clusters has to train on.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentscale.config import load_config
from latentscale.distributed.engines import make_accelerator
from latentscale.distributed.exiting import exit_process
from latentscale.methods.registry import METHODS
from latentscale.sources import cluster_law
from latentscale.training.loop import train
from launching import ROOT, Finished, Processes, launch_command, overrides


def run_several(runs: Sequence[dict[str, Any]], folder: Path, count: int, **environment: str) -> Finished:
    """Start a number of processes that train these runs; remaining processes are killed."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = folder / f"runs-of-{count}.json"
    listed.write_text(json.dumps([{**run, "arguments": overrides(**run["settings"])} for run in runs], default=str))
    command = [part for part in launch_command(count, Path(__file__)) if not part.startswith("distributed.")]
    processes = Processes()
    try:
        return processes.run(
            [*command, str(listed)],
            timeout_seconds=240,
            PYTHONPATH=f"{ROOT / 'platform'}:{ROOT / 'tests'}",
            **environment,
        )
    finally:
        processes.close()


def main() -> None:
    accelerator = make_accelerator(timeout_seconds=300)  # one process group for all runs
    for run in json.loads(Path(sys.argv[1]).read_text()):
        os.environ.update(run.get("environment", {}))
        if points := run.get("cluster_points"):
            cluster_law.COUNTS["train"] = points
            # written on first use, with this many
            os.environ["LATENTSCALE_CACHE"] = str(Path(sys.argv[1]).parent / f"cache-{points}")
        kind = METHODS[run["method"]]
        recipe = {"preset": run.get("preset", "digits8")}
        config = load_config(kind.Settings, run["method"], recipe, run["arguments"], ROOT / "recipes" / "presets")
        train(config, kind)
    accelerator.end_training()
    exit_process()


if __name__ == "__main__":
    main()
