"""Writes the runs that `test_earlier_runs.py` continues and compares with: ``python generate.py CHECKOUT``.

CHECKOUT is a clean working tree of the commit whose runs are to be kept, with its dependencies in the Python that runs
this. Each run is a real recipe's, in float64, on bundled data, of networks with a few hundred weights; it becomes a
folder beside this file:

    RUN/config.yaml metrics.jsonl checkpoints/ model/   as the recipe left them (pictures are not kept)
    RUN/expected.safetensors                            fixed inputs of the model, and what it computed from them

``written_by.json`` names the commit. Write the files again only when a format or a number changes on purpose.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
KEPT = ("config.yaml", "metrics.jsonl", "checkpoints", "model")
STEPS, MIDDLE = 6, 3

_COMMON = {
    "latent.dim": 4,
    "network.widths": "[2]",
    "network.base_width": 2,
    "training.batch": 16,
    "training.steps": STEPS,
    "training.precision": "fp64",
    "training.report_every_steps": MIDDLE,
    "distributed.streams": 8,
    "checkpoint.every_steps": MIDDLE,
    "evaluation.images": 16,
    "snapshot.every_steps": 0,
    "snapshot.images": 1,
    "telemetry.tensorboard": "false",
    "telemetry.progress": "false",
}
# P(C) moves from the step of the middle checkpoint on
_MOVING_PRIOR = {"latent.categories": "[3,4]", "method.prior_start_step": MIDDLE}

RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "pvdgan": ("pvdgan", {}),
    "cgpgan": ("cgpgan", _MOVING_PRIOR),
    "invgan": ("invgan", {"method.variant": "full", "distributed.streams": 4}),
    "aedlsgan": ("aedlsgan", {}),
    "cgpgan-clusters": ("cgpgan", {**_MOVING_PRIOR, "preset": "clusters"}),
}
"""The recipe of each run and what it is given beside the common settings."""


def arguments(run: str) -> list[str]:
    """The run's command line after the recipe; the run's folder is relative."""
    settings = {**_COMMON, **RUNS[run][1], "run.dir": run}
    return [f"{key}={value}" for key, value in settings.items()]


def model_outputs(model_folder: Path, inputs: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a trained model computes from fixed inputs, by ``KIND.WHAT``, together with the inputs themselves.

    Args:
        model_folder: a run's folder or its ``model/``.
        inputs: ``latents [5, d_z]``, ``images [5, *shape]`` and, where the generator takes them, ``categories
            [5, d_l]``; without any, those that are stored are made here.
    """
    import torch

    from latentscale import Inverter

    inverter = Inverter.load(model_folder, "cpu")
    model = inverter.model
    if inputs is None:
        latents = torch.linspace(-1.5, 1.5, 5 * model.latent_dim, dtype=torch.float64).reshape(5, -1)
        size = 5 * torch.Size(model.shape).numel()
        inputs = {
            "latents": latents,
            "images": torch.linspace(0, 40, size, dtype=torch.float64).sin().reshape(5, *model.shape),
        }
        if model.categories:
            inputs["categories"] = torch.stack([torch.arange(5) % each for each in model.categories], dim=1)
    categories = inputs.get("categories")
    found = dict(inputs)
    found["decoded.images"] = inverter.decode(inputs["latents"], categories=categories)
    generated = inverter.generate(5, 3)
    found["generated.images"], found["generated.latents"] = generated.images, generated.latents
    if generated.categories is not None:
        found["generated.categories"] = generated.categories
    if model.can_invert:
        found["encoded.latents"] = inverter.encode(inputs["images"])
        found["reconstructed.images"] = inverter.reconstruct(inputs["images"])
    if model.method.name == "aedlsgan":
        found["attribute.scores"] = inverter.attribute_scores(inputs["latents"])
        found["edited.latents"] = inverter.edit(inputs["latents"], 1, 0.5)
    return found


def main() -> None:
    checkout = Path(sys.argv[1]).resolve()
    dirty = subprocess.check_output(["git", "status", "--porcelain"], cwd=checkout, text=True)
    if dirty:
        sys.exit(f"{checkout} has changes that are not committed: check out the commit whose runs are to be kept")
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=checkout, text=True).strip()
    sys.path.insert(0, str(checkout / "platform"))
    from safetensors.torch import save_file

    import latentscale

    if not Path(latentscale.__file__).is_relative_to(checkout):
        sys.exit(f"Python imports {latentscale.__file__}, not {checkout}'s: run this with that checkout's Python")
    environment = {**os.environ, "PYTHONPATH": str(checkout / "platform"), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        for run, (recipe, _) in RUNS.items():
            command = [sys.executable, str(checkout / "recipes" / f"{recipe}.py"), *arguments(run)]
            subprocess.run(command, cwd=scratch, env=environment, check=True)
            shutil.rmtree(HERE / run, ignore_errors=True)
            (HERE / run).mkdir()
            for name in KEPT:
                (Path(scratch) / run / name).rename(HERE / run / name)
            save_file(model_outputs(HERE / run / "model"), HERE / run / "expected.safetensors")
    (HERE / "written_by.json").write_text(json.dumps({"commit": commit}, indent=1) + "\n")


if __name__ == "__main__":
    main()
