"""World-size invariance of every registered method, in float64; a registered method is tested automatically."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from every_method import NEEDS, RUNS, SHARED_BIAS, STEPS, may_rest
from states import final_state, worst_difference
from torch import Tensor

from launching import ROOT, Finished, Processes, accelerate_command, launch_command

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "tests" / "distributed" / "every_method.py"
LAYOUTS = [(1, 4), (2, 2), (4, 1)]  # processes, accumulation
TOLERANCE = 1e-9
# a paired loss of whole batches sees only differences of D's values, in which this bias cancels
UNMOVED = {"pvdgan relativistic": {SHARED_BIAS}}


class Layout(NamedTuple):
    """All methods' runs with one number of processes, and how they ended: a test that looks at it fails."""

    folder: Path
    ending: Finished

    def state(self, run: str) -> dict[str, Tensor]:
        assert self.ending.code == 0, self.ending.err
        return final_state(self.folder / run)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Layout]:
    """By processes and accumulation; each is one launch of processes."""
    processes, layouts = Processes(), {}
    for count, accumulation in [(1, 1), *LAYOUTS]:
        folder = tmp_path_factory.mktemp(f"p{count}a{accumulation}")
        # two processes are interpreters of their own, with a hash seed and addresses of their own
        launch = accelerate_command if count == 2 else launch_command
        command = [part for part in launch(count, SCRIPT) if not part.startswith("distributed.")]
        finished = processes.run(
            [*command, str(folder), str(accumulation)],
            timeout_seconds=600,
            PYTHONPATH=f"{ROOT / 'platform'}:{ROOT / 'tests'}",
        )
        layouts[count, accumulation] = Layout(folder, finished)
    return layouts


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("run", RUNS)
def test_processes_and_accumulation_take_the_same_steps(
    run: str, layout: tuple[int, int], runs: dict[tuple[int, int], Layout]
) -> None:
    assert worst_difference(runs[layout].state(run), runs[1, 1].state(run)) <= TOLERANCE


@pytest.mark.parametrize("run", RUNS)
def test_the_steps_change_everything_that_is_trained(run: str, runs: dict[tuple[int, int], Layout]) -> None:
    moments = {name: value for name, value in runs[1, 1].state(run).items() if "/exp_avg_sq/" in name}
    assert moments
    unmoved = {name.partition("/exp_avg_sq/")[2] for name, value in moments.items() if not bool((value > 0).any())}
    assert unmoved == UNMOVED.get(run, unmoved & may_rest(run))


def test_p_of_c_is_uniform_until_it_may_move_and_on_the_simplex_after(runs: dict[tuple[int, int], Layout]) -> None:
    assert NEEDS["cgpgan"]["method__prior_start_step"] == STEPS - 3
    prior = runs[4, 1].state("cgpgan")["statistic/category_prior/probabilities"]
    uniform = torch.cat([torch.full((3,), 1 / 3), torch.full((4,), 1 / 4)]).double()
    assert 1e-6 < float((prior - uniform).abs().max()) <= 3e-3  # three steps of decay 0.999
    for part in prior.split([3, 4]):
        assert float(part.sum()) == pytest.approx(1.0, abs=1e-12)
        assert bool((part >= 0).all())
