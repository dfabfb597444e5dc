"""The reproduction on Gaussian clusters: its verdict by hand, and some steps of each of its methods."""

import importlib.util
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from launching import ROOT, Processes

SCRIPT = ROOT / "recipes" / "reproductions" / "clusters" / "run.py"
STEPS = 40


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("clusters_run", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def found(*probabilities: float, clusters: tuple[int, ...] = (0, 1, 2, 3)) -> list[dict[str, float]]:
    return [{"probability": p, "cluster": c} for p, c in zip(probabilities, clusters, strict=True)]


def test_the_verdict(script: ModuleType) -> None:
    assert script.is_correct(found(0.1, 0.2, 0.3, 0.4))
    assert script.is_correct(found(0.119, 0.181, 0.3, 0.4))
    assert not script.is_correct(found(0.121, 0.179, 0.3, 0.4))
    assert not script.is_correct(found(0.2, 0.1, 0.3, 0.4))  # the right numbers on the wrong clusters
    assert not script.is_correct(found(0.1, 0.2, 0.3, 0.4, clusters=(0, 1, 2, 2)))
    assert not script.is_correct(found(0.1, 0.2, 0.7, clusters=(0, 1, 2)))
    assert not script.is_correct(found(0.1, 0.2, 0.3, 0.2, 0.2, clusters=(0, 1, 2, 3, 3)))


def test_some_steps_of_each_method(script: ModuleType, processes: Processes, tmp_path: Path) -> None:
    """The first run is started as the script does; the others are forked, with the same arguments and log."""
    begun = itertools.count()

    def runner(command: list[str], log: Path) -> int:
        if next(begun) == 0:
            status: int = script.run_logged(command, log)
            return status
        finished = processes.run(command)
        log.write_text(finished.out + finished.err)
        return finished.code

    chosen = ["vanilla", "infogan", "cgpgan", "cgpgan_large"]
    out = tmp_path / "out"
    arguments = ["--steps", str(STEPS), "--seeds", "3", "--jobs", "2", "--experiments", *chosen]
    script.main([*arguments, "--runs", str(tmp_path / "runs"), "--out", str(out)], runner)
    runs = {run["experiment"]: run for run in json.loads((out / "results.json").read_text())["runs"]}
    assert set(runs) == set(chosen)
    assert {run["steps"] for run in runs.values()} == {STEPS}
    # P(C) moves in the last 70 % of the steps, by a thousandth each: it is still near 1/16, and no longer there
    priors = [each["probability"] for each in runs["cgpgan"]["categories"]]
    assert len(priors) == 16
    assert 1e-4 < max(abs(p - 1 / 16) for p in priors) < 0.25
    assert sum(priors) == pytest.approx(1.0, abs=1e-5)
    assert [each["probability"] for each in runs["infogan"]["categories"]] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    for run in runs.values():
        assert sum(run["cluster_shares"]) == pytest.approx(1.0)
    sizes = {path.stem: Image.open(path).width for path in out.glob("*.png")}
    assert set(sizes) == {f"figure-{number}" for number in (38, 39, 41, 42)}
    assert sizes["figure-41"] > 1.5 * sizes["figure-38"]  # two panels, one
    assert "| vanilla | 3 | none |" in (out / "results.md").read_text()


def test_the_kept_results_are_those_of_the_script_and_meet_the_bar(script: ModuleType) -> None:
    kept = json.loads((SCRIPT.parent / "results.json").read_text())
    assert kept["settings"] == script.COMMON
    runs = kept["runs"]
    planned = [(name, seed) for name, experiment in script.EXPERIMENTS.items() for seed in experiment.seeds]
    assert [(run["experiment"], run["seed"]) for run in runs] == planned
    assert {run["steps"] for run in runs} == {script.STEPS}
    for run in runs:
        if "categories" in run:
            assert run["right"] == script.is_correct(run["categories"])
            assert all(each["probability"] >= script.SURVIVING for each in run["categories"])
    assert sum(run["right"] for run in runs if run["experiment"] == script.JUDGED) >= 4
    assert (SCRIPT.parent / "results.md").read_text() == script.table(runs)
    for name in script.FIGURES:
        assert Image.open(SCRIPT.parent / f"{name}.png").width > 600
