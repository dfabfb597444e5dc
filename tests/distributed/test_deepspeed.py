"""DeepSpeed takes DDP's steps, and a run may go on under another engine on another number of processes.

All by real processes over gloo, each start through one of our Accelerate files; see `deepspeed_runs`. They are forked
from one that has imported DeepSpeed; interpreters are started where Accelerate's own options are tested. Positive
controls: with gradients that are not joined, or moments that are not taken over, the same comparisons fail by far.
"""

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from deepspeed_runs import ALL, COUNTED_STEPS, COUNTS, ENGINES, EQUAL, MOVED, OFFLOADED, PARTITIONED
from states import bitwise_equal, final_state, worst_difference

from latentscale.config import load_config
from latentscale.distributed.deepspeed_settings import (
    check_engine,
    clear_launcher_environment,
    launcher_settings,
    require_launcher_settings,
)
from latentscale.errors import UserError
from latentscale.methods.pvdgan import PVDGAN
from latentscale.training.checks import plan_dry_run
from latentscale.training.method_building import network_sizes
from launching import ROOT, Processes, environment, free_port, overrides

pytestmark = [pytest.mark.processes, pytest.mark.timeout(900)]

TOLERANCE = 1e-5
# and what it and DDP import in their first step
IMPORTED = ("deepspeed", "setuptools", "torch._dynamo.testing", "torch._inductor.compile_fx")
SCRIPT = ROOT / "tests" / "distributed" / "deepspeed_runs.py"
ACCELERATE = str(Path(sys.executable).with_name("accelerate"))
# the Accelerate file of each start, its processes, what it does; later ones need what earlier ones have left
STARTS = (
    ("deepspeed_zero1", 4, ("save",)),
    ("deepspeed_zero2", 2, ("save", "equal", "compiled", "broken", "poisoned", "refused", "counted")),
    ("deepspeed_zero0", 1, ("reference", "save", "load", "files")),
    ("deepspeed_zero1_offload", 2, ("load", "forgetful")),
    ("deepspeed_zero2_offload", 4, ("load",)),
)
LAUNCHED = {name: count for name, count, _ in STARTS}
FILES = sorted((ROOT / "launchers" / "deepspeed").glob("*.json"))
PYTHONPATH = ":".join(str(ROOT / part) for part in ("platform", "tests", "tests/distributed"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs, by what they are called in `deepspeed_runs`."""
    folder, processes = tmp_path_factory.mktemp("runs"), Processes()
    for name, count, tasks in STARTS:
        file = ROOT / "launchers" / "accelerate" / f"{name}.yaml"
        command = [ACCELERATE, "launch", "--config_file", str(file), "--main_process_port", str(free_port())]
        # two is what the files say
        command += [] if count == 2 else ["--num_processes", str(count)]
        finished = processes.run(
            [*command, str(SCRIPT), str(folder), name, *tasks], timeout_seconds=600, forks_children=True,
            modules=IMPORTED, PYTHONPATH=PYTHONPATH,
        )  # fmt: skip
        assert finished.code == 0, finished.err
    return folder


def difference(runs: Path, run: str, reference: str) -> float:
    return worst_difference(final_state(runs / run), final_state(runs / reference))


def engine_of(run: Path) -> dict[str, Any]:
    """What a run was, by its own word."""
    chosen: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())["distributed"]
    return {key: chosen[key] for key in ("engine", "zero", "offload_optimizer", "processes")}


def said_by(name: str, processes: int) -> dict[str, Any]:
    """What a file's name promises."""
    stage = int(name.removeprefix("deepspeed_")[4])
    return {
        "engine": "deepspeed", "zero": stage, "offload_optimizer": name.endswith("_offload"), "processes": processes,
    }  # fmt: skip


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine != "ddp"])
@pytest.mark.parametrize("method", EQUAL)
def test_five_steps_are_ddps(method: str, engine: str, runs: Path) -> None:
    assert difference(runs, f"{method}-{engine}", f"{method}-ddp") <= TOLERANCE


@pytest.mark.parametrize("engine", OFFLOADED)
def test_an_offloaded_optimizer_takes_the_same_steps(engine: str, runs: Path) -> None:
    assert difference(runs, f"{MOVED}-{engine}", f"{MOVED}-ddp") <= TOLERANCE


@pytest.mark.parametrize("engine", [*PARTITIONED, *OFFLOADED])
def test_accumulated_gradients_are_ddps(engine: str, runs: Path) -> None:
    assert difference(runs, f"accumulated-{engine}", "accumulated-ddp") <= TOLERANCE


@pytest.mark.parametrize("engine", PARTITIONED)
def test_gradients_of_many_buckets_are_ddps(engine: str, runs: Path) -> None:
    assert difference(runs, f"buckets-{engine}", f"{MOVED}-ddp") <= TOLERANCE


@pytest.mark.parametrize("engine", ["zero0", "zero2"])
def test_learning_rates_decay_as_under_ddp(engine: str, runs: Path) -> None:
    assert difference(runs, f"decay-{engine}", "decay-ddp") <= TOLERANCE


@pytest.mark.parametrize("engine", ["zero0", "zero1", "zero2_offload"])
def test_clipped_gradients_are_ddps(engine: str, runs: Path) -> None:
    assert difference(runs, f"clipped-{engine}", "clipped-ddp") <= TOLERANCE


def test_a_compiled_phase_takes_the_same_steps(runs: Path) -> None:
    assert difference(runs, "compiled-zero2", "compiled-ddp") <= TOLERANCE


@pytest.mark.parametrize("engine", ["zero0", "zero2"])
def test_bf16_is_ddps_autocast_over_float32_weights(engine: str, runs: Path) -> None:
    # rounding to 8 bits may tip either way where gradients are summed in another order
    assert difference(runs, f"bf16-{engine}", "bf16-ddp") <= 1e-2
    # and it is no float32
    assert difference(runs, f"bf16-{engine}", f"pvdgan-{engine}") > 2e-2


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine != "ddp"])
def test_with_gradients_that_are_not_joined_the_comparison_fails(engine: str, runs: Path) -> None:
    assert difference(runs, f"broken-{engine}", "pvdgan-ddp") > 1e-2


@pytest.mark.parametrize("engine", ALL)
def test_a_nan_on_one_rank_skips_the_step_on_all(engine: str, runs: Path) -> None:
    assert bitwise_equal(final_state(runs / f"poisoned-{engine}"), final_state(runs / f"clean-{engine}"))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_head_that_nothing_trains_is_named(engine: str, runs: Path) -> None:
    told = (runs / f"untrained-{engine}.txt").read_text()
    assert told == (runs / "untrained-ddp.txt").read_text()
    assert "discriminator phase does not train discriminator.heads.log_variance" in told


@pytest.mark.parametrize(
    ("engine", "accumulation", "reductions"),
    [("zero0", 1, 1), ("zero0", 2, 1), ("zero1", 1, 1), ("zero1", 2, 1), ("zero2", 1, 1), ("zero2", 2, 2)],
)
def test_gradients_are_reduced_with_the_last_micro_batch_alone_but_at_zero_2(
    engine: str, accumulation: int, reductions: int, runs: Path
) -> None:
    found = Counter(json.loads((runs / f"counted-{engine}-{accumulation}.json").read_text()))
    config = load_config(PVDGAN.Settings, "pvdgan", {}, overrides())
    for size in network_sizes(plan_dry_run(config, PVDGAN)).values():
        assert found[size] == COUNTED_STEPS * reductions
    # of parted gradients, one number more for each phase's norm; and the statistics' one vector in any case
    assert found[1] == (0 if engine == "zero0" else 2 * COUNTED_STEPS)
    assert found[3 + config.latent.dim] == COUNTED_STEPS


@pytest.mark.parametrize("source", [f"{count}-{engine}" for count in COUNTS for engine in ENGINES])
@pytest.mark.parametrize("target", [f"{count}-{engine}" for count in COUNTS for engine in ENGINES])
def test_a_run_goes_on_under_another_engine_and_number_of_processes(target: str, source: str, runs: Path) -> None:
    assert difference(runs, f"{target}-from-{source}", "reference") <= TOLERANCE


@pytest.mark.parametrize("engine", ENGINES)
def test_without_the_moments_it_would_not_go_on_the_same(engine: str, runs: Path) -> None:
    assert difference(runs, f"forgetful-{engine}", "reference") > 1e-2


@pytest.mark.parametrize("name", LAUNCHED)
def test_each_accelerate_file_starts_the_engine_that_it_names(name: str, runs: Path) -> None:
    assert engine_of(runs / f"launched-{name}") == said_by(name, LAUNCHED[name])
    assert difference(runs, f"launched-{name}", "launched-deepspeed_zero0") <= TOLERANCE
    assert {path.stem for path in (ROOT / "launchers" / "accelerate").glob("deepspeed_*.yaml")} == set(LAUNCHED)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.stem))
def test_each_deepspeed_file_trains_with_the_engine_that_it_names(file: Path, runs: Path) -> None:
    assert engine_of(runs / f"file-{file.stem}") == said_by(file.stem, 1)
    assert difference(runs, f"file-{file.stem}", "launched-deepspeed_zero0") <= TOLERANCE


def test_one_process_without_a_launcher_runs_and_runs_again(runs: Path, processes: Processes, tmp_path: Path) -> None:
    script = """
import sys
import torch.distributed as dist
from pathlib import Path
from deepspeed_runs import MOVED, MOVED_SETTINGS, SAVED_STEPS, run
for steps in (SAVED_STEPS, SAVED_STEPS + 1):
    run(Path(sys.argv[1]), steps, MOVED, "zero1", **MOVED_SETTINGS)
    assert not dist.is_initialized()
"""
    finished = processes.run(
        [sys.executable, "-c", script, str(tmp_path / "run")], modules=IMPORTED, PYTHONPATH=PYTHONPATH
    )
    assert finished.code == 0, finished.err
    assert not finished.err
    assert not finished.out
    assert worst_difference(final_state(tmp_path / "run"), final_state(runs / "reference")) <= TOLERANCE


def test_a_recipe_is_launched_by_accelerates_own_options(processes: Processes, tmp_path: Path) -> None:
    command = [
        ACCELERATE, "launch", "--use_deepspeed", "--zero_stage", "2", "--offload_optimizer_device", "cpu",
        "--num_machines", "1", "--num_processes", "2", "--main_process_port", str(free_port()), "--mixed_precision",
        "no", str(ROOT / "recipes" / "pvdgan.py"), f"run.dir={tmp_path / 'run'}",
        *overrides(training__precision="fp32", training__steps=2, distributed__processes=2),
    ]  # fmt: skip
    finished = processes.run(command)
    assert finished.code == 0, finished.err
    assert engine_of(tmp_path / "run") == said_by("zero2_offload", 2)
    assert (tmp_path / "run" / "checkpoints" / "step-000000002").is_dir()
    assert "Warning" not in finished.err


LAUNCHER = {"ACCELERATE_USE_DEEPSPEED": "true"}


@pytest.mark.parametrize(
    ("variables", "zero", "offload"),
    [
        ({}, 2, False),  # Accelerate's own default
        ({"ACCELERATE_DEEPSPEED_ZERO_STAGE": "0", "ACCELERATE_GRADIENT_CLIPPING": "0.0"}, 0, False),
        ({"ACCELERATE_DEEPSPEED_ZERO_STAGE": "1", "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, 1, True),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1", "ACCELERATE_DEEPSPEED_CONFIG_FILE": "none"}, 2, False),
    ],
)
def test_the_launchers_settings_become_keys(variables: dict[str, str], zero: int, offload: bool) -> None:
    said = launcher_settings({**LAUNCHER, **variables})
    assert said == {
        "distributed.engine": "deepspeed", "distributed.zero": zero, "distributed.offload_optimizer": offload,
    }  # fmt: skip


def test_clipping_is_off_unless_the_launcher_asks_for_it(tmp_path: Path) -> None:
    key = "optimizer.gradient_clipping"
    assert key not in launcher_settings({**LAUNCHER, "ACCELERATE_GRADIENT_CLIPPING": "0.0"})
    assert launcher_settings({**LAUNCHER, "ACCELERATE_GRADIENT_CLIPPING": "0.5"})[key] == 0.5
    file = tmp_path / "deepspeed.json"
    file.write_text(json.dumps({"gradient_clipping": 2}))
    assert launcher_settings({**LAUNCHER, "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)})[key] == 2.0


def test_a_launcher_without_deepspeed_changes_nothing() -> None:
    assert launcher_settings({"ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}) == {}
    assert launcher_settings({"ACCELERATE_USE_DEEPSPEED": "false"}) == {}


@pytest.mark.parametrize(
    ("variables", "parts"),
    [
        ({"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, ["zero_stage=3", "gradient penalties", "0, 1 or 2"]),
        ({"ACCELERATE_DEEPSPEED_ZERO_STAGE": "two"}, ["zero_stage=two", "0, 1 or 2"]),
        ({"ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "nvme"}, ["offload_optimizer_device=nvme", "cpu"]),
        ({"ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "cpu"}, ["offload_param_device=cpu", "none"]),
        ({"ACCELERATE_GRADIENT_CLIPPING": "much"}, ["gradient_clipping=much", "give a number"]),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, ["gradient_accumulation_steps=4", "training.accumulation"]),
    ],
)
def test_unsupported_settings_are_refused_by_name(variables: dict[str, str], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        launcher_settings({**LAUNCHER, **variables})
    assert all(part in str(error.value) for part in parts)


@pytest.mark.parametrize(
    ("content", "variables", "parts"),
    [
        ({"zero_optimization": {"stage": 3}}, {}, ["zero_stage=3", "gradient penalties"]),
        (
            {"zero_optimization": {"stage": 1}},
            {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
            ["zero_stage=1", "zero_stage=2", "give both the same value"],
        ),
        ({"fp16": {"enabled": True}}, {}, ["fp16=true", "training.precision=bf16"]),
        ({"bf16": {"enabled": True}}, {}, ["bf16=true", "training.precision=bf16"]),
        ({"train_batch_size": 64}, {}, ["train_batch_size=64", "training.batch"]),
        (
            {"gradient_clipping": 1.0},
            {"ACCELERATE_GRADIENT_CLIPPING": "2.0"},
            ["gradient_clipping=2.0", "the same value"],
        ),
        ({"optimizer": {"type": "Adam"}}, {}, ["optimizer.type", "optimizer.*"]),
        (
            {"zero_optimization": {"reduce_bucket_size": 5}},
            {},
            ["reduce_bucket_size", "leave it out"],
        ),
        ([1], {}, ["launchers/deepspeed"]),
        (None, {}, ["another deepspeed_config_file"]),
    ],
)
def test_a_deepspeed_file_that_asks_for_more_is_refused(
    content: Any, variables: dict[str, str], parts: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "deepspeed.json"
    if content is not None:
        file.write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        launcher_settings({**LAUNCHER, **variables, "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)})
    assert all(part in str(error.value) for part in parts), error.value


def test_a_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deepspeed.json").write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        launcher_settings({**LAUNCHER, "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(tmp_path / "deepspeed.json")})


def test_launcher_and_keys_must_not_contradict() -> None:
    said = launcher_settings({**LAUNCHER, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"})

    def read(*arguments: str, recipe: dict[str, Any] | None = None) -> Any:
        return load_config(PVDGAN.Settings, "pvdgan", recipe, arguments, launched=said).distributed

    assert (read().engine, read().zero) == ("deepspeed", 1)
    assert read("distributed.engine=deepspeed", "distributed.zero=1").zero == 1
    with pytest.raises(
        UserError, match=r"distributed\.engine=ddp, but accelerate launch.* distributed\.engine=deepspeed"
    ):
        read("distributed.engine=ddp")
    with pytest.raises(UserError, match=r"distributed\.zero=2, but accelerate launch.* distributed\.zero=1"):
        read("distributed.zero=2")
    with pytest.raises(UserError, match=r"distributed\.offload_optimizer=true, but accelerate"):
        read(recipe={"distributed.offload_optimizer": True})


def test_a_run_that_differs_from_the_launcher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"distributed.engine": "ddp", "distributed.zero": 0, "distributed.offload_optimizer": False}
    require_launcher_settings(chosen)
    for name, value in {**LAUNCHER, "ACCELERATE_CONFIG_DS_FIELDS": "zero_stage"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"distributed\.engine=ddp, but accelerate launch"):
        require_launcher_settings(chosen)
    clear_launcher_environment()
    require_launcher_settings(chosen)


ASKED: dict[str, Any] = {"engine": "deepspeed", "zero": 0, "offload_optimizer": False, "precision": "fp32"}


@pytest.mark.parametrize(
    ("asked", "parts"),
    [
        ({"zero": 3}, ["distributed.zero=3", "gradient penalties", "0, 1 or 2"]),
        ({"zero": 4}, ["distributed.zero=4", "0, 1 or 2"]),
        ({"offload_optimizer": True}, ["distributed.offload_optimizer=true", "distributed.zero=1"]),
        ({"precision": "fp64"}, ["training.precision=fp64", "distributed.engine=ddp"]),
        ({"engine": "ddp", "zero": 1}, ["distributed.zero=1", "distributed.engine=deepspeed"]),
        ({"engine": "ddp", "offload_optimizer": True}, ["offload_optimizer=true", "distributed.engine=deepspeed"]),
    ],
)
def test_an_engine_that_cannot_do_it_is_refused(asked: dict[str, Any], parts: list[str]) -> None:
    check_engine(**ASKED)
    with pytest.raises(UserError) as error:
        check_engine(**{**ASKED, **asked})
    assert all(part in str(error.value) for part in parts)


def test_a_missing_deepspeed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    assert importlib.util.find_spec("deepspeed") is None
    with pytest.raises(UserError, match=r"pip install 'latentscale\[deepspeed\]'"):
        check_engine(**ASKED)
    check_engine(**{**ASKED, "engine": "ddp"})


def test_deepspeed_is_imported_only_if_it_is_used() -> None:
    script = """
import sys
import latentscale.training.loop, latentscale.recipe
from latentscale.distributed.engines import make_accelerator
make_accelerator(60)
assert not [name for name in sys.modules if name.split(".")[0] == "deepspeed"]
"""
    subprocess.run(
        [sys.executable, "-c", script], check=True, env={**environment(), "PYTHONPATH": str(ROOT / "platform")}
    )
