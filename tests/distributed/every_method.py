"""Trains every registered method for a few steps, one after the other; started on any number of processes.

``python every_method.py FOLDER ACCUMULATION`` or through ``accelerate launch``; runs go to FOLDER/METHOD. A method that
is registered is trained here without more ado; what it cannot do without stands in `NEEDS`.
"""

import sys
from pathlib import Path

from latentscale.config import load_config
from latentscale.distributed.engines import make_accelerator
from latentscale.distributed.exiting import exit_process
from latentscale.methods.registry import METHODS
from latentscale.recipe import print_outcome
from latentscale.training.loop import train
from launching import overrides

STEPS = 5
# the mixing ratio goes from 0 to 1/2, before a layer that sees the batch; of the reals' classes some are rare
_MIXED: dict[str, object] = {
    "data__label_probabilities": "[0.5,0.3,0.2,0,0,0,0,0,0,0]",
    "method__mix_rate": 0.25,
    "method__mix_epoch_steps": 2,
    "network__family": "mlp",
    "network__widths": "[24,24]",
    "network__extra_width": 16,
    "network__minibatch_deviation": "true",
}
# settings that a method needs in addition to the small run's
NEEDS: dict[str, dict[str, object]] = {
    # P(C) starts to move, and the reals are no longer balanced, in mid-run
    "cgpgan": {"method__prior_start_step": 2},
    "elastic_infogan": {"method__prior_start_step": 3, "method__contrastive_weight": 0.5},
    "cagan": _MIXED,
    "invgan": {"method__variant": "full", "distributed__streams": 4},
}
# variants of methods, by name
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "acgan mixed": ("acgan", {**_MIXED, "method__revised": "true"}),
    "cgpgan codebook": ("cgpgan", {"method__prior_start_step": 3, "network__family": "codebook"}),
    "invgan augmented": ("invgan", {"method__variant": "augmented"}),
    "invgan naive": ("invgan", {"method__variant": "naive", "network__family": "style", "network__mapping_layers": 0}),
    "pvdgan relativistic": ("pvdgan", {"method__adversarial": "relativistic", "method__r2": 0.3}),
    # from pairs of all-real and all-fake batches to pairs within half-and-half ones; R2's second derivatives of the
    # deviation of two nearly equal fakes would magnify rounding to 1e-8, whatever the loss: streams of 8 samples
    "cagan relativistic": (
        "cagan",
        {**_MIXED, "method__adversarial": "relativistic", "method__mix_rate": 0.5, "method__r2": 0.3}
        | {"distributed__streams": 4},
    ),
    "vanilla lazy": ("vanilla", {"latent__categories": "[3,4]", "method__penalty_interval_steps": 2}),
}
RUNS: dict[str, str] = {**{name: name for name in METHODS}, **{run: name for run, (name, _) in VARIANTS.items()}}
"""The method of each run; vanilla is first: others may invert it."""

# the bias that all values of D share: within its margin, or always, such a loss sees only differences of the values
SHARED_BIAS, SHIFT_FREE = "discriminator.heads.adversarial.bias", ("hinge", "wasserstein", "relativistic")


def may_rest(run: str) -> set[str]:
    """Parameters of a run that its loss need not move."""
    chosen = METHODS[RUNS[run]].Settings().adversarial
    changes = VARIANTS[run][1] if run in VARIANTS else NEEDS.get(run, {})
    return {SHARED_BIAS} if changes.get("method__adversarial", chosen) in SHIFT_FREE else set()


def settings(run: str, folder: Path) -> dict[str, object]:
    """The small run of a method, or of a variant."""
    name = RUNS[run]
    kind = METHODS[name]
    own = VARIANTS[run][1] if run in VARIANTS else NEEDS.get(name, {})
    chosen: dict[str, object] = {"run__dir": folder / run, "training__steps": STEPS, **own}
    if kind.categorical and not kind.categories_optional:
        chosen["latent__categories"] = "[3,4]"
    if hasattr(kind.Settings(), "generator_run"):
        chosen["method__generator_run"] = folder / "vanilla"
    return chosen


def main() -> None:
    folder, accumulation = Path(sys.argv[1]), int(sys.argv[2])
    accelerator = make_accelerator(timeout_seconds=300)  # one process group for all runs
    for run, name in RUNS.items():
        kind = METHODS[name]
        arguments = overrides(training__accumulation=accumulation, **settings(run, folder))
        outcome = train(load_config(kind.Settings, name, {}, arguments), kind)
        if accelerator.is_main_process:
            print_outcome(outcome, kind)  # whether or not the method writes pictures
    accelerator.end_training()
    exit_process()


if __name__ == "__main__":
    main()
