"""Measures the cost of a step of each method relative to the vanilla GAN's, next to the published figures.

Part of ``make bench``; all methods are timed beside each other in one process, turn by turn.
"""

import argparse
import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from bench import HERE, at_least_seven, machine
from cases import CASES, Case, platform_loop, scratch
from turns import Contestant, Ratio, ratio, time_rounds

from latentscale.methods.registry import METHODS
from latentscale.training.loop import train

# published step times relative to other methods
PUBLISHED = {"pvdgan": "about 1", "dlsgan": "about 1", "msegan": "about 1", "infogan": "about 1", "vaegan": "about 1.3"}
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "invgan": ("invgan (full)", {"method__variant": "full"}),
    "invgan naive": ("invgan (naive)", {"method__variant": "naive"}),
    "invgan augmented": ("invgan (augmented)", {"method__variant": "augmented"}),
    # its penalty on the fakes costs more than its pass of D over the reals
    "pvdgan relativistic": (
        "pvdgan (relativistic)",
        {"method__adversarial": "relativistic", "method__r2": 3.0, "method__reconstruction_weight": 1.0},
    ),
}


@dataclass
class MethodCost:
    """The step of a method.

    Attributes:
        step_seconds: median over rounds.
        against_vanilla: ratios round by round.
        published: of that ratio in words, empty where nothing is published.
    """

    name: str
    step_seconds: float
    against_vanilla: Ratio
    published: str

    def line(self) -> str:
        return f"  {self.name:<22} {1000 * self.step_seconds:7.1f} ms   {self.against_vanilla!s:<22} {self.published}"


def needs(name: str, finished: Path) -> dict[str, object]:
    """The settings that a method requires, as keywords of `Case.config`."""
    kind = METHODS[name]
    found: dict[str, object] = {}
    if kind.categorical and not kind.categories_optional:
        found["latent__categories"] = "[4]"
    if hasattr(kind.Settings(), "generator_run"):
        found["method__generator_run"] = finished
    if name == "invgan":
        found["distributed__streams"] = 2  # MMD² compares halves of a stream's batch
    if name == "pvdgan":
        found["method__reconstruction_weight"] = 1.0
    return found


def methods_cost(case: Case, rounds: int) -> list[MethodCost]:
    """Steps of all registered methods, timed next to each other; vanilla takes part twice, as its own control."""
    with scratch() as folder:
        finished = folder / "finished"
        train(case.config("vanilla", folder, run__dir=finished, training__steps=1), METHODS["vanilla"])
        contestants = {"vanilla again": Contestant(platform_loop(case, "vanilla", folder, "again"))}
        for name in METHODS:
            title, variant = VARIANTS.get(name, (name, {}))
            settings = {**needs(name, finished), **variant}
            contestants[title] = Contestant(platform_loop(case, name, folder, name, **settings))
        for key, (title, variant) in VARIANTS.items():
            if title not in contestants:
                contestants[title] = Contestant(platform_loop(case, key.split()[0], folder, key, **variant))
        seconds = time_rounds(contestants, rounds, case.steps)
        for contestant in contestants.values():
            contestant.close()
    return [
        MethodCost(name, statistics.median(each), ratio(seconds, name, "vanilla"), PUBLISHED.get(name, ""))
        for name, each in sorted(seconds.items(), key=lambda item: statistics.median(item[1]))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=at_least_seven, default=9, help="paired rounds, at least 7")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of methods.txt and methods.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = machine(options.rounds)
    case = CASES["images32"]
    found = methods_cost(case, options.rounds)
    lines = [
        f"A step of every method / vanilla's step: {case.meaning}; published, where it is (256x256)",
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in about.items()),
        *(each.line() for each in found),
    ]
    print("\n".join(lines))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "methods.txt").write_text("\n".join(lines) + "\n")
    record = {"machine": about, "methods": [asdict(each) for each in found]}
    (options.out / "methods.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
