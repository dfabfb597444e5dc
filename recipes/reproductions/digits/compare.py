"""Train PVDGAN and the methods it is compared with on the bundled digits with the same settings.

    python recipes/reproductions/digits/compare.py            # what `make compare` runs
    python recipes/reproductions/digits/compare.py --seeds 0 --methods pvdgan dlsgan

Each run is its recipe's command; running this script again continues interrupted runs. It writes `results.json`,
`results.md` and `reconstructions.png` beside this file (or into --out).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from latentscale.atomic import new_file
from latentscale.config import load_config
from latentscale.data.datasets import open_dataset
from latentscale.inversion.inverter import Inverter
from latentscale.methods.registry import METHODS
from latentscale.pictures import Row, RowGroup, draw_grid, save_png
from latentscale.training.held_out import read_samples

HERE = Path(__file__).resolve().parent
RECIPES = HERE.parents[1]
PRESET = "digits8"
# three seeds of PVDGAN, whose results are tested; the other methods are for comparison
SEEDS = {"pvdgan": (0, 1, 2), "dlsgan": (0,), "infogan": (0,), "msegan": (0,)}
COLUMNS = {
    "latent_error_median": "L_enc, median",
    "psnr_db": "real PSNR, dB",
    "gain_db": "above the mean image, dB",
    "effective_dimensions": "effective dimensions",
    "latent_entropy_nats": "latent entropy, nats",
}
SHOWN_IMAGES = 16


@dataclass
class Run:
    """One training run."""

    method: str
    seed: int
    folder: Path

    def train(self, arguments: list[str], processes: int) -> dict[str, Any]:
        """Run the recipe to its end; returns its last evaluation and its training time in seconds."""
        script = str(RECIPES / f"{self.method}.py")
        settings = [f"run.dir={self.folder}", f"run.seed={self.seed}", "telemetry.tensorboard=false", *arguments]
        command = [sys.executable, script, *settings]
        if processes > 1:
            cpu = RECIPES.parent / "launchers" / "accelerate" / "cpu.yaml"
            launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(cpu)]
            launch += ["--num_processes", str(processes)]
            command = [*launch, script, f"distributed.processes={processes}", *settings]
        log = self.folder.with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with log.open("a") as output:
            code = subprocess.run(command, stdout=output, stderr=output, env=_environment()).returncode
        if code:
            raise SystemExit(f"error: {' '.join(command)} exited with status {code}: see {log}")
        records = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        last = next(record for record in reversed(records) if "evaluation/psnr_db" in record)
        reports = [record for record in records if "seconds/total" in record]
        found = {name.removeprefix("evaluation/"): value for name, value in last.items()}
        found["training_seconds"] = sum(record["seconds/total"] for record in reports)
        print(f"{self.folder.name}: {time.monotonic() - began:,.0f} s", flush=True)
        return {"method": self.method, "seed": self.seed, **found}


def main() -> None:
    """Train, and write tables and a picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=sorted(SEEDS), default=list(SEEDS), help="methods to train")
    parser.add_argument(
        "--seeds", nargs="+", type=int, help="seeds of every method; by default three for pvdgan, one for the others"
    )
    parser.add_argument("--jobs", type=int, default=2, help="number of runs at a time, each on one thread")
    parser.add_argument("--processes", type=int, default=1, help="processes of each run, which do not change the model")
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"), help="folder for the runs")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the results")
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="settings of every run, which override the preset"
    )
    options = parser.parse_args()
    runs = [
        Run(method, seed, options.runs / f"{method}-seed{seed}")
        for method in options.methods
        for seed in (options.seeds or SEEDS[method])
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda run: run.train(options.settings, options.processes), runs))
    options.out.mkdir(parents=True, exist_ok=True)
    configs = {method: resolved(method, options.settings) for method in options.methods}
    kept = {
        "preset": PRESET,
        "settings": options.settings,
        "torch": torch.__version__,
        "runs": results,
        "config": configs,
    }
    for name, text in (("results.json", json.dumps(kept, indent=1) + "\n"), ("results.md", table(results))):
        with new_file(options.out / name) as new:
            new.write_text(text)
    save_png(picture(runs), options.out / "reconstructions.png")
    print(table(results))
    print(f"results: {options.out}")


def resolved(method: str, settings: list[str]) -> dict[str, Any]:
    """The configuration of a method's runs, without the sections on their folder, data and hardware."""
    config = load_config(METHODS[method].Settings, method, {"preset": PRESET}, settings, RECIPES / "presets").to_dict()
    return {section: config[section] for section in ("latent", "network", "method", "optimizer", "training")}


def table(results: list[dict[str, Any]]) -> str:
    """A Markdown table of medians over seeds, and below it a table of all runs."""
    head = ["method", "seeds", *COLUMNS.values()]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for method in dict.fromkeys(result["method"] for result in results):
        own = [result for result in results if result["method"] == method]
        middles = [median(result[name] for result in own if result[name] is not None) for name in COLUMNS]
        lines.append(" | ".join([method, str(len(own)), *(f"{value:.3f}" for value in middles)]))
    lines += ["", "Every run:", "", " | ".join(["method", "seed", *COLUMNS.values(), "training, s"])]
    lines.append(" | ".join("---" for _ in range(len(COLUMNS) + 3)))
    for result in results:
        cells = [f"{result[name]:.3f}" for name in COLUMNS] + [f"{result['training_seconds']:.0f}"]
        lines.append(" | ".join([result["method"], str(result["seed"]), *cells]))
    return "\n".join(f"| {line} |" if "|" in line else line for line in lines) + "\n"


def picture(runs: list[Run]) -> Any:
    """Held-out digits above their reconstructions by each method's first run."""
    reals = read_samples(open_dataset("digits", None, "test"), SHOWN_IMAGES)
    rows = [Row("held-out digits", reals.float() / 127.5 - 1)]
    for method in dict.fromkeys(run.method for run in runs):
        run = next(run for run in runs if run.method == method)
        rows.append(Row(method, Inverter.load(run.folder).reconstruct(reals)))
    return draw_grid(
        [RowGroup(rows)], "Held-out digits and their reconstructions", f"preset {PRESET}, seed {runs[0].seed}"
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


if __name__ == "__main__":
    main()
