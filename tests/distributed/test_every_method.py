"""World-size invariance of every registered method, in float64; a registered method is tested automatically."""

from pathlib import Path

import pytest
import torch
from every_method import NEEDS, RUNS, SHARED_BIAS, STEPS, may_rest
from states import final_state, worst_difference

from launching import ROOT, Processes, accelerate_command, launch_command

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "tests" / "distributed" / "every_method.py"
LAYOUTS = [(1, 4), (2, 2), (4, 1)]  # processes, accumulation
TOLERANCE = 1e-9
# a paired loss of whole batches sees only differences of D's values, in which this bias cancels
UNMOVED = {"pvdgan relativistic": {SHARED_BIAS}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Path]:
    """All methods' runs by layout; each layout is one launch of processes."""
    processes, folders = Processes(), {}
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
        assert finished.code == 0, finished.err
        folders[count, accumulation] = folder
    return folders


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("run", RUNS)
def test_processes_and_accumulation_take_the_same_steps(
    run: str, layout: tuple[int, int], runs: dict[tuple[int, int], Path]
) -> None:
    reference = final_state(runs[1, 1] / run)
    assert worst_difference(final_state(runs[layout] / run), reference) <= TOLERANCE


@pytest.mark.parametrize("run", RUNS)
def test_the_steps_change_everything_that_is_trained(run: str, runs: dict[tuple[int, int], Path]) -> None:
    moments = {name: value for name, value in final_state(runs[1, 1] / run).items() if "/exp_avg_sq/" in name}
    assert moments
    unmoved = {name.partition("/exp_avg_sq/")[2] for name, value in moments.items() if not bool((value > 0).any())}
    assert unmoved == UNMOVED.get(run, unmoved & may_rest(run))


def test_p_of_c_is_uniform_until_it_may_move_and_on_the_simplex_after(runs: dict[tuple[int, int], Path]) -> None:
    assert NEEDS["cgpgan"]["method__prior_start_step"] == STEPS - 3
    prior = final_state(runs[4, 1] / "cgpgan")["statistic/category_prior/probabilities"]
    uniform = torch.cat([torch.full((3,), 1 / 3), torch.full((4,), 1 / 4)]).double()
    assert 1e-6 < float((prior - uniform).abs().max()) <= 3e-3  # three steps of decay 0.999
    for part in prior.split([3, 4]):
        assert float(part.sum()) == pytest.approx(1.0, abs=1e-12)
        assert bool((part >= 0).all())
