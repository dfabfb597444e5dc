"""N processes train like one: the same parameters, moments, averages and statistics in float64.

Every run has real processes over gloo; those that move are launched as a user launches them. Each check has a positive
control: with one ingredient broken the same comparison fails by orders of magnitude.
"""

from pathlib import Path
from typing import NamedTuple

import pytest
from every_pair import STEPS, TRAINED
from states import final_state, worst_difference
from torch import Tensor

from launching import ROOT, Finished, Processes, Train, launch_command, overrides

TOLERANCE = 1e-9
METHODS = TRAINED
COUNTS = ACCUMULATIONS = (1, 2, 4)
PAIRS = [(p, a) for p in COUNTS for a in ACCUMULATIONS if (p, a) != (1, 1)]
SCRIPT = ROOT / "tests" / "distributed" / "every_pair.py"
BROKEN = {
    # each process draws its latents from its own seed
    "per-rank seeds": """
import os
from latentscale.training import feed
whole = feed.block_uniforms
feed.block_uniforms = lambda seed, *rest: whole(seed + int(os.environ.get("RANK", "0")), *rest)
""",
    # each process keeps the v of its own samples
    "v not reduced": """
from latentscale.distributed import ddp
def wait_for_piggyback(self):
    self._carrier.grad = self._piggyback = None  # what this process packed stays as it is
ddp.DDPPhase.wait_for_piggyback = wait_for_piggyback
# processes that drift apart would not come to the end
from latentscale.training import consensus
consensus.refuse_divergence = lambda *arguments: None
""",
}

pytestmark = pytest.mark.processes


def launch(script: Path, count: int, folder: Path, accumulations: tuple[int, ...]) -> Finished:
    """Both methods with each accumulation, in one launch of a number of processes."""
    command = [part for part in launch_command(count, script) if not part.startswith("distributed.")]
    return Processes().run(
        [*command, str(folder), ",".join(map(str, accumulations))],
        timeout_seconds=300,
        # what the others are compared with has a hash seed of its own: forked runs share theirs
        interpreter=count == 1,
        PYTHONPATH=f"{ROOT / 'platform'}:{ROOT / 'tests'}",
    )


class Runs(NamedTuple):
    """All runs, in folders COUNT/METHOD-ACCUMULATION, and how each launch ended: a test that looks at it fails."""

    folder: Path
    endings: dict[int, Finished]

    def state(self, count: int, accumulation: int, method: str) -> dict[str, Tensor]:
        assert self.endings[count].code == 0, self.endings[count].err
        return final_state(self.folder / str(count) / f"{method}-{accumulation}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    return Runs(folder, {count: launch(SCRIPT, count, folder / str(count), ACCUMULATIONS) for count in COUNTS})


@pytest.fixture(scope="module")
def references(runs: Runs) -> dict[str, dict[str, Tensor]]:
    """The final state of one process with the whole batch, by method."""
    return {method: runs.state(1, 1, method) for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("processes_count", "accumulation"), PAIRS)
def test_every_pair_takes_the_same_steps(
    method: str, processes_count: int, accumulation: int, references: dict[str, dict[str, Tensor]], runs: Runs
) -> None:
    state = runs.state(processes_count, accumulation, method)
    assert worst_difference(state, references[method]) <= TOLERANCE


@pytest.mark.parametrize("method", METHODS)
def test_a_run_moves_from_one_process_to_four(
    method: str, references: dict[str, dict[str, Tensor]], train: Train, tmp_path: Path
) -> None:
    train(method, tmp_path, 1, training__steps=STEPS // 2)
    train(method, tmp_path, 4, training__steps=STEPS)
    assert worst_difference(final_state(tmp_path), references[method]) <= TOLERANCE


def run_broken(ingredient: str, method: str, folder: Path, processes: Processes) -> dict[str, Tensor]:
    """The steps of two processes with one ingredient broken."""
    script = folder.with_suffix(".py")
    recipe = ROOT / "recipes" / f"{method}.py"
    script.write_text(
        f"{BROKEN[ingredient]}\nimport runpy, sys\nsys.argv[0] = {str(recipe)!r}\n"
        f"runpy.run_path({str(recipe)!r}, run_name='__main__')\n"
    )
    finished = processes.run([*launch_command(2, script), f"run.dir={folder}", *overrides(training__steps=STEPS)])
    assert finished.code == 0, finished.err
    return final_state(folder)


@pytest.mark.parametrize("ingredient", BROKEN)
def test_with_one_ingredient_broken_the_comparison_fails(
    ingredient: str, references: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    script = tmp_path / "broken.py"
    script.write_text(f"{BROKEN[ingredient]}\nimport runpy\nrunpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n")
    finished = launch(script, 2, tmp_path, (1,))
    assert finished.code == 0, finished.err
    for method in METHODS:
        assert worst_difference(final_state(tmp_path / f"{method}-1"), references[method]) > 1e-5


def test_with_one_ingredient_broken_a_moved_run_differs(
    references: dict[str, dict[str, Tensor]], processes: Processes, train: Train, tmp_path: Path
) -> None:
    train("pvdgan", tmp_path / "run", 1, training__steps=STEPS // 2)
    broken = run_broken("v not reduced", "pvdgan", tmp_path / "run", processes)
    assert worst_difference(broken, references["pvdgan"]) > 1e-5
