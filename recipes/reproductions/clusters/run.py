"""Train CGPGAN and the methods it is compared with on four Gaussian clusters (Cho 2025, §4.5.1, figs. 38-42).

    python recipes/reproductions/clusters/run.py                       # all runs, about an hour and a half on two cores
    python recipes/reproductions/clusters/run.py --experiments cgpgan --seeds 10

The runs are shorter than the published ones: networks are 128 wide instead of 512, d_z is 64 instead of 256, the batch
is 64 instead of 16, AdamW's learning rate is 1e-3 instead of 1e-4, and a run has 20,000 steps instead of 200,000.
Elastic InfoGAN's P(C) also learns ten times as fast. As published, P(C) is updated from 30 % of the run on. λ_cgp = 1
was chosen on other seeds.

Each run is its recipe's command; running this script again continues interrupted runs. It writes `results.json`,
`results.md` and a picture for each figure beside this file (or into --out).
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.progress import MofNCompleteColumn, Progress

from latentscale.atomic import new_file
from latentscale.inversion.trained_model import TrainedModel, model_folder
from latentscale.latents.draws import Purpose
from latentscale.pictures import PointCloud, draw_scatter, join_panels, save_png
from latentscale.sources.cluster_law import ClusterLaw, bundled_points

LAW = ClusterLaw()
CENTRES = torch.tensor(LAW.means, dtype=torch.float64)
HERE = Path(__file__).resolve().parent
RECIPES = HERE.parents[1]
STEPS = 20_000
PRIOR_START = 0.3
SURVIVING = 0.01
TOLERANCE = 0.02
# a point farther than this from every centre is between the clusters
BRIDGE_DEVIATIONS = 4.0
GENERATED, SHOWN = 20_000, 1500
COMMON = [
    "preset=clusters", "network.widths=[128,128,128,128]", "latent.dim=64", "training.batch=64",
    "optimizer.learning_rate=0.001", "snapshot.every_steps=0", "checkpoint.every_steps=2000",
    "telemetry.tensorboard=false",
]  # fmt: skip


Runner = Callable[[Sequence[str], Path], int]
"""Runs a command, appends what it prints to a file, and returns its exit status."""


@dataclass(frozen=True)
class Experiment:
    """Runs that differ only in their seed."""

    title: str
    method: str
    settings: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (10,)


EXPERIMENTS = {
    "vanilla": Experiment("vanilla", "vanilla", ("latent.categories=[]", "method.category_probabilities=[]")),
    "vanilla_categories": Experiment("vanilla with the true P(C)", "vanilla"),
    "infogan": Experiment("InfoGAN with the true P(C)", "categorical_infogan", seeds=(10, 11, 12, 13)),
    **{
        f"elastic_t{temperature}_lr{rate}": Experiment(
            f"Elastic InfoGAN, t {temperature}, lr {rate}",
            "elastic_infogan",
            (f"method.temperature={temperature}", f"method.prior_learning_rate={10 * float(rate):g}"),
        )
        for temperature in ("0.1", "0.3", "1.0")
        for rate in ("0.0001", "0.0003", "0.001")
    },
    "cgpgan_zero": Experiment("CGPGAN, lambda 0", "cgpgan", ("method.cgp_weight=0",)),
    "cgpgan": Experiment("CGPGAN, lambda 1", "cgpgan", ("method.cgp_weight=1",), seeds=(10, 11, 12, 13, 14)),
    "cgpgan_ten": Experiment("CGPGAN, lambda 10", "cgpgan", ("method.cgp_weight=10",)),
    "cgpgan_large": Experiment("CGPGAN, lambda 100", "cgpgan", ("method.cgp_weight=100",)),
}
JUDGED = "cgpgan"
ELASTIC = tuple(name for name in EXPERIMENTS if name.startswith("elastic"))


@dataclass(frozen=True)
class Figure:
    """A figure of Cho 2025: the experiments it shows, with every seed or only the first, and its panels per row."""

    title: str
    experiments: tuple[str, ...]
    every_seed: bool
    columns: int


FIGURES = {
    "figure-38": Figure("Cho 2025, fig. 38: vanilla GAN", ("vanilla", "vanilla_categories"), False, 2),
    "figure-39": Figure("Cho 2025, fig. 39: InfoGAN given the true P(C)", ("infogan",), True, 4),
    "figure-40": Figure("Cho 2025, fig. 40: Elastic InfoGAN", ELASTIC, False, 3),
    "figure-41": Figure(
        "Cho 2025, fig. 41: CGPGAN by lambda", ("cgpgan_zero", "cgpgan", "cgpgan_ten", "cgpgan_large"), False, 4
    ),
    "figure-42": Figure("Cho 2025, fig. 42: CGPGAN with five seeds", ("cgpgan",), True, 5),
}


def train(name: str, seed: int, folder: Path, steps: int, runner: Runner) -> None:
    """Run an experiment's recipe to its end.

    Args:
        runner: starts its command.

    Raises:
        SystemExit: if the run fails, naming its log.
    """
    experiment = EXPERIMENTS[name]
    settings = [*COMMON, *experiment.settings, f"training.steps={steps}", f"run.seed={seed}", f"run.dir={folder}"]
    if experiment.method in ("cgpgan", "elastic_infogan"):
        settings.append(f"method.prior_start_step={round(PRIOR_START * steps)}")
    log = folder.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(RECIPES / f"{experiment.method}.py"), *settings]
    if status := runner(command, log):
        raise SystemExit(f"error: {' '.join(command)} exited with status {status}: see {log}")


def run_logged(command: Sequence[str], log: Path) -> int:
    """Run a command on one thread, append what it prints to a file, and return its exit status."""
    with log.open("a") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, stdout=output, stderr=output, env=environment, check=False).returncode


@torch.no_grad()
def measure(name: str, seed: int, folder: Path) -> tuple[dict[str, Any], Image.Image]:
    """Measure P(C), the cluster of each category and the share of points between clusters; and draw the points."""
    model = TrainedModel.load(model_folder(folder))
    drawn = model.draw_latents(GENERATED, 0, Purpose.EVALUATION)
    categories = model.draw_categories(GENERATED, 0, Purpose.EVALUATION)
    points = model.decode(model.map_latent(drawn), categories).double()
    distances = torch.cdist(points, CENTRES)
    nearest = distances.argmin(dim=1)
    shares = torch.bincount(nearest, minlength=len(CENTRES)) / len(points)
    result: dict[str, Any] = {
        "experiment": name,
        "seed": seed,
        "steps": model.step,
        "cluster_shares": shares.tolist(),
        "between_clusters": float((distances.amin(dim=1) > BRIDGE_DEVIATIONS * LAW.deviation).double().mean()),
    }
    clouds = [PointCloud("real", torch.from_numpy(bundled_points(LAW, "test")[0][:SHOWN]))]
    if categories is None:
        clouds.append(PointCloud("generated", points[:SHOWN]))
    else:
        prior = model.method.latent_state()["category_prior"].double()
        index = categories.argmax(dim=1)
        found = []
        for category in torch.nonzero(prior >= SURVIVING).flatten().tolist():
            own = nearest[index == category]
            counts = torch.bincount(own, minlength=len(CENTRES))
            purity = float(counts.max() / counts.sum()) if len(own) else 0.0
            found.append(
                {
                    "category": category,
                    "probability": float(prior[category]),
                    "cluster": int(counts.argmax()),
                    "purity": purity,
                }
            )
            clouds.append(
                PointCloud(f"category {category}, P = {prior[category]:.3f}", points[:SHOWN][index[:SHOWN] == category])
            )
        result["categories"] = sorted(found, key=lambda each: each["probability"])
        result["right"] = is_correct(result["categories"])
    return result, draw_scatter(clouds, f"{EXPERIMENTS[name].title}, seed {seed}", f"step {model.step:,}")


def draw_figures(pictures: dict[tuple[str, int], Image.Image], out: Path) -> None:
    """Draw every figure of which there are runs."""
    for name, figure in FIGURES.items():
        runs = {each: [seed for other, seed in sorted(pictures) if other == each] for each in figure.experiments}
        panels = [
            pictures[each, seed] for each, seeds in runs.items() for seed in (seeds if figure.every_seed else seeds[:1])
        ]
        if panels:
            save_png(join_panels(panels, figure.columns, figure.title), out / f"{name}.png")


def is_correct(categories: list[dict[str, Any]]) -> bool:
    """Whether four categories survive, one per cluster, each with its cluster's probability to within `TOLERANCE`."""
    return sorted(each["cluster"] for each in categories) == list(range(len(CENTRES))) and all(
        abs(each["probability"] - LAW.probabilities[each["cluster"]]) <= TOLERANCE for each in categories
    )


def table(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table with a row per run."""
    lines = [
        "| run | seed | surviving P(C) | lowest share in the main cluster | between clusters | all four right |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        found = result.get("categories")
        cells = [
            EXPERIMENTS[result["experiment"]].title,
            str(result["seed"]),
            "none" if found is None else " ".join(f"{each['probability']:.4f}" for each in found),
            "" if not found else f"{min(each['purity'] for each in found):.1%}",
            f"{result['between_clusters']:.2%}",
            "" if found is None else ("yes" if result["right"] else "no"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def as_json(results: Sequence[dict[str, Any]]) -> str:
    """The content of results.json, a line per run."""
    runs = ",\n".join(f"  {json.dumps(result)}" for result in results)
    return f'{{\n "torch": "{torch.__version__}",\n "settings": {json.dumps(COMMON)},\n "runs": [\n{runs}\n ]\n}}\n'


def main(arguments: Sequence[str] | None = None, runner: Runner = run_logged) -> None:
    """Train, measure, and write pictures and tables.

    Args:
        arguments: the command line; ``sys.argv`` without one.
        runner: starts the commands of the runs.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds of every experiment, instead of its own")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of every run")
    parser.add_argument("--jobs", type=int, default=2, help="number of runs at a time, each on one thread")
    parser.add_argument("--runs", type=Path, default=Path("runs/clusters"), help="folder for the runs")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the results")
    options = parser.parse_args(arguments)
    chosen = [(name, seed) for name in options.experiments for seed in (options.seeds or EXPERIMENTS[name].seeds)]

    options.out.mkdir(parents=True, exist_ok=True)

    def train_and_measure(run: tuple[str, int]) -> tuple[dict[str, Any], Image.Image]:
        name, seed = run
        folder = options.runs / f"{name}-seed{seed}"
        train(name, seed, folder, options.steps, runner)
        progress.advance(task)
        return measure(name, seed, folder)

    with Progress(*Progress.get_default_columns(), MofNCompleteColumn()) as progress:
        task = progress.add_task("runs", total=len(chosen))
        with ThreadPoolExecutor(options.jobs) as pool:
            results, pictures = zip(*pool.map(train_and_measure, chosen), strict=True)
    draw_figures(dict(zip(chosen, pictures, strict=True)), options.out)
    for name, text in (("results.json", as_json(results)), ("results.md", table(results))):
        with new_file(options.out / name) as new:
            new.write_text(text)
    print(table(results))


if __name__ == "__main__":
    main()
