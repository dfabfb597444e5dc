"""What a run does and leaves behind, through real runs of small models."""

import json
from pathlib import Path

import pytest
import torch
from every_method import may_rest
from every_method import settings as small_run
from states import bitwise_equal, final_state, worst_difference
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from documents import run_files, run_folder_rows
from latentscale.config import load_config
from latentscale.data.memory_cache import MemoryCachedReader
from latentscale.data.step_reader import Block
from latentscale.distributed.phases import DistributedPhase
from latentscale.distributed.statistics import FusedStatistics
from latentscale.errors import UserError
from latentscale.inversion.inverter import Inverter
from latentscale.losses import inversion
from latentscale.methods import pvdgan
from latentscale.methods.base import Method
from latentscale.methods.registry import METHODS
from latentscale.training.ema import WeightAverage
from latentscale.training.loop import train as train_here
from launching import Train, overrides

REPORTED = {
    "step", "images", "epoch", "images_per_second", "seconds/total", "seconds/data", "seconds/discriminator",
    "seconds/generator", "seconds/statistics", "discriminator/adversarial", "discriminator/encoder",
    "discriminator/r1", "discriminator/gradient_norm", "discriminator/real_score", "discriminator/fake_score",
    "generator/adversarial", "generator/encoder", "generator/reconstruction", "generator/gradient_norm",
    "variance/min", "variance/median", "variance/max", "scale/min", "scale/median", "scale/max",
    "latent_entropy_nats", "effective_dimensions", "skipped_steps",
}  # fmt: skip


def run_here(name: str, folder: Path, **changes: object):
    """Train in this process."""
    method = METHODS[name]
    config = load_config(method.Settings, name, {}, [f"run.dir={folder}", *overrides(**changes)])
    return train_here(config, method)


def reports(folder: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if "images" in record]


@pytest.mark.slow
def test_a_runs_folder(tmp_path: Path) -> None:
    outcome = run_here(
        "pvdgan", tmp_path, training__steps=6, training__report_every_steps=2, snapshot__every_steps=3,
        checkpoint__every_steps=2, checkpoint__keep=2, telemetry__tensorboard="true",
    )  # fmt: skip
    assert outcome.finished
    records = reports(tmp_path)
    assert [record["step"] for record in records] == [2, 4, 6]
    assert [record["images"] for record in records] == [64, 128, 192]
    assert set(records[0]) >= REPORTED
    assert records[-1]["epoch"] == pytest.approx(192 / 1500)
    stages = sum(value for name, value in records[-1].items() if name.startswith("seconds/") and name[8:] != "total")
    assert 0.5 * records[-1]["seconds/total"] < stages <= 1.01 * records[-1]["seconds/total"]
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["step-000000004", "step-000000006"]
    kinds = {"samples", "reconstructions", "fakes", "sweeps"}
    pictures = {path.name for path in (tmp_path / "snapshots").iterdir()}
    assert pictures == {f"{kind}-{step:09d}.png" for kind in kinds for step in (3, 6)}
    assert "batch: 32" in (tmp_path / "config.yaml").read_text()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("generator/encoder")] == [2, 4, 6]
    for event, record in zip(events.Scalars("generator/encoder"), records, strict=True):
        assert event.value == pytest.approx(record["generator/encoder"], rel=1e-6)
    # other tests here and in test_exit_reports.py have these two
    assert run_folder_rows(tmp_path) == set(run_files()) - {"snapshots/categories-STEP.png", "STOPPED"}
    inverter = Inverter.load(tmp_path)
    average = final_state(tmp_path)
    torch.testing.assert_close(inverter.variance, average["statistic/variance/variance"], rtol=0, atol=0)
    for name, parameter in inverter.model.method.networks["generator"].named_parameters():
        assert torch.equal(parameter, average[f"average/generator/{name}"])


def drawn(folder: Path) -> set[str]:
    """The kinds of pictures in a run's folder, all of whose files are documented."""
    return {row.split("/")[1].split("-")[0] for row in run_folder_rows(folder) if row.startswith("snapshots/")}


def expected_pictures(method: type[Method], inverter: Inverter) -> set[str]:
    """What docs/run-folder.md says below its table."""
    pictures = {"samples", "fakes", "sweeps"} if method.generates else set()
    if method.inverts:
        pictures.add("reconstructions")
    else:
        pictures.discard("fakes")
    return pictures | ({"categories"} if inverter.model.method.generates_by_category else set())


# what must not move: a P(C) that is given, attributes that are fixed for ever, a finished generator
FIXED = {
    "acgan": ("statistic/category_prior/",),
    "cagan": ("statistic/category_prior/",),
    "categorical_infogan": ("statistic/category_prior/",),
    "aedlsgan": ("statistic/attributes/",),
    "posthoc_encoder": ("network/generator/", "average/generator/"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_and_every_tensor_moves_but_what_is_fixed(name: str, tmp_path: Path) -> None:
    needs = small_run(name, tmp_path)
    if "method__prior_start_step" in needs:
        needs["method__prior_start_step"] = 0
    if "method__generator_run" in needs:
        run_here("vanilla", tmp_path / "vanilla", training__steps=1)
    folder = Path(str(needs.pop("run__dir")))
    run_here(name, folder, **{**needs, "training__steps": 1, "checkpoint__every_steps": 1})
    first = final_state(folder)
    run_here(name, folder, **{**needs, "training__steps": 3})
    last = final_state(folder)
    assert drawn(folder) == expected_pictures(METHODS[name], Inverter.load(folder))
    still = {key for key in last if torch.equal(first[key], last[key])}
    fixed = {key for key in last if key.startswith(FIXED.get(name, ("nothing/",)))}
    resting = {key for key in still - fixed if key.endswith(tuple(may_rest(name)) or "nothing")}
    assert still - resting == fixed


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_data_that_fail_leave_every_method_where_the_last_good_step_did(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = small_run(name, tmp_path)
    if "method__generator_run" in needs:
        run_here("vanilla", tmp_path / "vanilla", training__steps=1)
    needs.pop("run__dir")
    run_here(name, tmp_path / "whole", **{**needs, "training__steps": 2})
    block = MemoryCachedReader.block

    def fail(self: MemoryCachedReader, steps: range) -> Block:
        if 2 in steps:
            raise UserError("the third step's data are gone")
        return block(self, steps)

    monkeypatch.setattr(MemoryCachedReader, "block", fail)
    # the steps that are skipped for want of data are not what the run ended of
    limits = {"checkpoint__every_steps": 3, "training__max_nonfinite_steps": 1}
    with pytest.raises(UserError, match=r"^the third step's data are gone \(a checkpoint of step 2 was written\)$"):
        run_here(name, tmp_path / "failing", **{**needs, "training__steps": 9, **limits})
    assert bitwise_equal(final_state(tmp_path / "failing"), final_state(tmp_path / "whole"))


@pytest.mark.slow
def test_the_losses_of_a_report_are_means_over_its_steps(tmp_path: Path) -> None:
    run_here("dlsgan", tmp_path / "each", training__steps=4, training__report_every_steps=1)
    run_here("dlsgan", tmp_path / "all", training__steps=4, training__report_every_steps=4)
    each, whole = reports(tmp_path / "each"), reports(tmp_path / "all")[0]
    for name in ("discriminator/adversarial", "generator/encoder", "generator/gradient_norm"):
        assert whole[name] == pytest.approx(sum(record[name] for record in each) / 4, rel=1e-6)


def test_worker_processes_and_prefetching_change_nothing(train: Train, tmp_path: Path) -> None:
    for workers in (0, 2):
        train("pvdgan", tmp_path / str(workers), training__steps=6, data__workers=workers)
    assert bitwise_equal(final_state(tmp_path / "0"), final_state(tmp_path / "2"))


def test_a_compiled_run_takes_the_same_steps(train: Train, tmp_path: Path) -> None:
    train("pvdgan", tmp_path / "eager", training__steps=4)
    train("pvdgan", tmp_path / "compiled", training__steps=4, training__compile="aot_eager")
    assert worst_difference(final_state(tmp_path / "compiled"), final_state(tmp_path / "eager")) <= 1e-9


@pytest.mark.slow
def test_bf16_follows_fp32(tmp_path: Path) -> None:
    values = {}
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        run_here("pvdgan", folder, training__steps=5, training__precision=precision, training__report_every_steps=5)
        values[precision] = reports(folder)[0]
        state = final_state(folder)
        assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    for name in ("discriminator/adversarial", "discriminator/r1", "generator/adversarial", "generator/encoder"):
        assert values["bf16"][name] == pytest.approx(values["fp32"][name], rel=0.03)
        assert values["bf16"][name] != values["fp32"][name]


@pytest.mark.slow
def test_a_nonfinite_step_is_skipped_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A NaN in the discriminator phase of step 2 leaves the state of step 1, but for the count of steps."""
    run_here("pvdgan", tmp_path / "one", training__steps=1)
    calls = []

    def poisoned(latent: torch.Tensor, predicted: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        value = inversion.scaled_latent_mse(latent, predicted, scale)
        return value * float("nan") if len(calls) == 3 else value

    # each phase takes it once a step: the third time is in the second step's discriminator phase
    monkeypatch.setattr(pvdgan, "scaled_latent_mse", poisoned)
    run_here("pvdgan", tmp_path / "two", training__steps=2, training__report_every_steps=1)
    assert len(calls) == 4
    assert bitwise_equal(final_state(tmp_path / "one"), final_state(tmp_path / "two"))
    assert [record["skipped_steps"] for record in reports(tmp_path / "two")] == [0.0, 1.0]


@pytest.mark.slow
def test_too_many_nonfinite_steps_stop_the_run_and_name_the_term(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here("pvdgan", tmp_path, training__steps=3, checkpoint__every_steps=1)
    whole = inversion.scaled_latent_mse
    monkeypatch.setattr(pvdgan, "scaled_latent_mse", lambda *args: whole(*args) * float("nan"))
    with pytest.raises(UserError, match=r"4 steps in a row were not finite.*discriminator/encoder"):
        run_here("pvdgan", tmp_path, training__steps=30, training__max_nonfinite_steps=4)
    assert (tmp_path / "checkpoints" / "step-000000003" / "state.json").is_file()


def test_a_head_that_nothing_trains_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = METHODS["infogan"].heads
    monkeypatch.setattr(METHODS["msegan"], "heads", classmethod(lambda cls, spec: heads(spec)))
    with pytest.raises(UserError, match=r"discriminator phase does not train .*log_variance"):
        run_here("msegan", tmp_path, training__steps=2)


def test_weights_average_by_hand() -> None:
    network = torch.nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        network.weight.fill_(1.0)
    average = WeightAverage({"n": network}, decay=0.9)
    with torch.no_grad():
        network.weight.fill_(2.0)
    average.update(torch.tensor(1.0))
    assert average.networks["n"].weight.item() == pytest.approx(0.9 * 1 + 0.1 * 2, rel=1e-15)
    average.update(torch.tensor(0.0))
    assert average.networks["n"].weight.item() == pytest.approx(1.1, rel=1e-15)
    average.update(torch.tensor(1.0))
    assert average.networks["n"].weight.item() == pytest.approx(0.9 * 1.1 + 0.2, rel=1e-15)


def test_networks_that_are_not_averaged_are_followed_as_they_are() -> None:
    networks = {name: torch.nn.Linear(1, 1, bias=False) for name in ("averaged", "current")}
    for network in networks.values():
        torch.nn.init.constant_(network.weight, 1.0)
    average = WeightAverage(networks, decay=0.75, current=("current",))
    for network in networks.values():
        torch.nn.init.constant_(network.weight, 2.0)
    average.update(torch.tensor(0.0))
    assert average.networks["current"].weight.item() == 1.0  # a step that is skipped
    average.update(torch.tensor(1.0))
    assert average.networks["averaged"].weight.item() == 1.25
    assert average.networks["current"].weight.item() == 2.0
    torch.nn.init.constant_(networks["current"].weight, 3.0)
    assert average.networks["current"].weight.item() == 2.0  # a copy


@pytest.mark.slow
def test_a_finished_vanilla_run_has_the_averaged_generator_beside_the_current_discriminator(tmp_path: Path) -> None:
    run_here("vanilla", tmp_path, training__steps=4)
    state = final_state(tmp_path)
    same = {
        network: all(
            torch.equal(tensor, state[name.replace("network/", "average/", 1)])
            for name, tensor in state.items()
            if name.startswith(f"network/{network}/")
        )
        for network in ("generator", "discriminator")
    }
    assert same == {"generator": False, "discriminator": True}


@pytest.mark.slow
def test_learning_rates_decay_with_every_epoch_and_a_continued_run_stands_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    step = DistributedPhase.step

    def listening(self: DistributedPhase, skip: torch.Tensor, norm: torch.Tensor) -> None:
        if self.phase.name == "generator":
            rates.append(self.optimizer.param_groups[0]["lr"])
        step(self, skip, norm)

    monkeypatch.setattr(DistributedPhase, "step", listening)
    # an epoch of 1,500 digits is 2.34 steps of 640: steps 0 to 2 stand in it, 3 and 4 in the next, 5 in the third
    settings: dict[str, object] = {
        "training__batch": 640, "distributed__streams": 8, "optimizer__learning_rate": 0.01,
        "optimizer__epoch_decay": 0.5, "network__family": "mlp", "network__widths": "[4]",
    }  # fmt: skip
    run_here("vanilla", tmp_path / "whole", training__steps=6, **settings)
    assert rates == [0.01] * 3 + [0.005] * 2 + [0.0025]
    rates.clear()
    run_here("vanilla", tmp_path / "resumed", training__steps=4, **settings)
    run_here("vanilla", tmp_path / "resumed", training__steps=6, **settings)
    assert rates == [0.01] * 3 + [0.005] * 2 + [0.0025]


@pytest.mark.slow
def test_a_resumed_run_whose_latents_enter_the_generator_as_drawn_is_the_uninterrupted_one(tmp_path: Path) -> None:
    # wide batches, few and odd latents: a matrix product then rounds by how its input lies in memory
    settings: dict[str, object] = {"training__batch": 128, "distributed__streams": 8, "latent__dim": 13}
    run_here("msegan", tmp_path / "whole", training__steps=14, **settings)
    run_here("msegan", tmp_path / "resumed", training__steps=3, **settings)
    run_here("msegan", tmp_path / "resumed", training__steps=14, **settings)
    assert bitwise_equal(final_state(tmp_path / "whole"), final_state(tmp_path / "resumed"))


@pytest.mark.slow
def test_gradients_are_clipped_to_the_norm_that_is_asked_for(tmp_path: Path) -> None:
    # beta1 = 0: Adam's first moment is the newest gradient
    for name, clipping in (("free", 0.0), ("clipped", 0.05), ("wide", 1e6)):
        run_here("dlsgan", tmp_path / name, training__steps=1, optimizer__gradient_clipping=clipping)
    for phase in ("discriminator", "generator"):
        gradients = {
            name: torch.cat(
                [
                    value.flatten()
                    for key, value in sorted(final_state(tmp_path / name).items())
                    if key.startswith(f"optimizer/{phase}/exp_avg/")
                ]
            )
            for name in ("free", "clipped", "wide")
        }
        assert gradients["free"].norm() > 0.05
        assert gradients["clipped"].norm().item() == pytest.approx(0.05, rel=1e-6)
        if phase == "discriminator":  # the generator then meets another discriminator
            factor = 0.05 / gradients["free"].norm()
            torch.testing.assert_close(gradients["clipped"], factor * gradients["free"], rtol=1e-6, atol=0)
        assert torch.equal(gradients["wide"], gradients["free"])


@pytest.mark.slow
def test_v_of_a_run_is_the_moving_average_of_what_both_phases_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    observe = FusedStatistics.observe

    def listening(self: FusedStatistics, observed: dict[str, torch.Tensor]) -> None:
        seen.append(observed["variance"].clone())
        observe(self, observed)

    monkeypatch.setattr(FusedStatistics, "observe", listening)
    run_here("pvdgan", tmp_path, training__steps=2)
    assert [len(latent) for latent in seen] == [32, 16, 32, 16]  # b of D's phase, b / 2 of G's
    v = torch.full((8,), 1e-4, dtype=torch.float64)
    for step in range(2):
        samples = torch.cat(seen[2 * step : 2 * step + 2])
        v = 0.999 * v + 0.001 * (samples**2).sum(0) / 48
    found = final_state(tmp_path)["statistic/variance/variance"]
    torch.testing.assert_close(found, v, rtol=1e-6, atol=0)  # the start, 1e-4, is a float32
