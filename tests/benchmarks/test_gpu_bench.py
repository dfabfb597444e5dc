"""What bench-gpu computes, on numbers worked out by hand, and its whole path on the CPU with a made-up peak."""

import json
import sys
from pathlib import Path

import bench_gpu
import pytest
import scaling_page
import torch
from bench_gpu import MODES, Device, Mode, Result, Stopwatch, configuration, measure, table, verdicts
from flops import counter, flops_of_a_step
from gpu_peaks import Peak, attainable, peak_of
from torch import nn

from latentscale.methods.phase import Batch, Terms
from latentscale.methods.registry import METHODS
from latentscale.training.checks import plan_dry_run
from latentscale.training.loop import train
from latentscale.training.method_building import build_method
from skipping import HAS_GPU

PEAK = Peak(bf16=4e9, tf32=2e9, fp32=1e9, source="made up")
TINY: dict[str, object] = {
    "latent.dim": 8, "network.widths": "[4]", "network.base_width": 4, "training.batch": 8, "distributed.streams": 2,
}  # fmt: skip


def cpu() -> Device:
    return Device(torch.device("cpu"), "a CPU", PEAK)


@pytest.mark.slow
def test_operations_of_a_layer_and_of_its_penalty() -> None:
    layer = nn.Linear(3, 5, bias=False)
    x = torch.randn(2, 3, requires_grad=True)
    product = 2 * 2 * 3 * 5
    with counter() as counting:
        layer(x).sum().backward()
    # forward, gradient of the weights, gradient of x
    assert counting.get_total_flops() == 3 * product
    with counter() as counting:
        (slope,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
        slope.square().sum().backward()
    # forward, slope, and the weights' gradient through the slope
    assert counting.get_total_flops() == 3 * product


@pytest.mark.slow
def test_operations_of_a_convolution() -> None:
    layer = nn.Conv2d(3, 5, 3, padding=1, bias=False, device="meta")
    with counter() as counting:
        layer(torch.empty(2, 3, 8, 8, device="meta"))
    assert counting.get_total_flops() == 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pvdgan", "cgpgan", "invgan"])
def test_operations_of_a_step_are_those_of_the_loop(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration(method, "digits8", MODES[0], {**TINY, "run.dir": tmp_path, "training.steps": 1})
    found = flops_of_a_step(config, METHODS[method])
    counted: dict[str, int] = {}
    for phase in METHODS[method](config.method, *built(method, config)).phases:
        count_calls(type(phase), counted, monkeypatch)
    train(config, METHODS[method])
    assert {name: value for name, value in found.items() if name != "prepare"} == counted
    assert ("prepare" in found) == (method == "cgpgan")
    assert min(found.values()) > 1000


def built(method: str, config: object) -> tuple[object, object, object]:
    made = build_method(plan_dry_run(config, METHODS[method]))  # type: ignore[arg-type]
    return made.networks, made.prior, made.spec


def count_calls(kind: type[nn.Module], counted: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a phase count its forward, and the backward of its own loss, in a real step."""
    forward = kind.forward

    def counting_forward(self: nn.Module, batch: Batch) -> Terms:
        with counter() as counting:
            probe = forward(self, batch)
            probe.loss.backward()
        for parameter in self.parameters():
            parameter.grad = None
        counted[self.name] = counting.get_total_flops()  # type: ignore[index]
        result: Terms = forward(self, batch)
        return result

    monkeypatch.setattr(kind, "forward", counting_forward)


@pytest.mark.parametrize(
    ("name", "bf16"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989.5e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362.05e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA A10", 125e12),
    ],
)
def test_a_card_is_known_by_its_name(name: str, bf16: float) -> None:
    found = peak_of(name)
    assert found is not None
    assert found.bf16 == bf16
    assert found.bf16 >= found.tf32 >= found.fp32


def test_what_is_not_known_has_no_peak() -> None:
    for name in ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "A card of tomorrow"):
        assert peak_of(name) is None


def test_a_precision_is_held_against_its_own_peak() -> None:
    assert attainable(PEAK, "bf16", tensor_cores=True) == 4e9
    assert attainable(PEAK, "fp32", tensor_cores=True) == 2e9
    assert attainable(PEAK, "fp32", tensor_cores=False) == 1e9


def measured(**changes: object) -> Result:
    values: dict[str, object] = {
        "method": "pvdgan", "preset": "afhq256", "mode": "bf16+compile", "batch": 8, "flops": 5 * 10**12,
        "step_seconds": 0.05, "bare_seconds": (0.054, 0.056), "peak_memory_bytes": 3 * 2**30, "peak_flops": 1e15,
    }  # fmt: skip
    return Result(**{**values, **changes})  # type: ignore[arg-type]


def test_a_row_by_hand() -> None:
    found = measured()
    assert found.images_per_second == pytest.approx(160)
    # 5 TFLOP in 0.05 s are 100 TFLOP/s of 1000
    assert found.share_of_peak == pytest.approx(0.1)
    assert found.bare_ratio == pytest.approx(1.1)
    assert found.against_itself == pytest.approx(56 / 54)
    head, line = table([found])
    assert line.split("  ")[0] == "pvdgan, afhq256"
    for cell in ("bf16+compile", "160.0", "50.0", "3.00", "10.0%", "1.100 (A/A 1.037)"):
        assert cell in line
    assert head.index("images/s") == line.index("160.0")


def test_unknown_figures_are_reported() -> None:
    assert "peak unknown" in table([measured(peak_flops=None)])[1]
    assert "out of memory" in table([measured(step_seconds=None, failure="out of memory")])[1]


def test_every_preset_that_the_scaling_page_lists_is_measured() -> None:
    assert set(bench_gpu.SHOWN) >= set(scaling_page.SHOWN)


def test_the_bar() -> None:
    slower = measured(step_seconds=0.06)
    others = [measured(mode="bf16"), measured(method="dlsgan", bare_seconds=())]
    assert ["PASS" in line for line in verdicts([measured(), slower, *others])] == [True, False]
    assert "MISS" in verdicts([slower])[0]
    assert "not measured" in verdicts([measured(step_seconds=None, failure="not measured")])[0]


class Clock(Device):
    """A device whose clock advances by a second whenever it is read."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"), "a clock", None)
        self.seconds, self.forgotten_at = 0.0, [-1.0]

    def now(self) -> float:
        self.seconds += 1
        return self.seconds

    def forget_peak_memory(self) -> None:
        self.forgotten_at.append(self.seconds)


def test_turns_begin_after_the_warm_up() -> None:
    clock, asked = Clock(), 0

    def loop(should_stop: object) -> None:
        nonlocal asked
        while True:
            asked += 1
            should_stop()  # type: ignore[operator]

    found = Stopwatch(clock, warm_up_steps=3, turns=2, steps=5).time(loop)
    assert asked == 3 + 2 * 5 + 1
    assert found.step_seconds == [0.2, 0.2]
    # asked for the time three times, and memory was forgotten when the first turn began
    assert (clock.seconds, clock.forgotten_at) == (3, [-1, 1])
    with pytest.raises(RuntimeError, match="ended"):
        Stopwatch(clock, 3, 2, 5).time(lambda should_stop: None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode",
    [Mode("fp32", "fp32"), Mode("bf16+compile", "bf16", "aot_eager")],
    ids=["fp32", "bf16+compile"],
)
def test_the_whole_path_on_the_cpu(mode: Mode, tmp_path: Path) -> None:
    found = measure(cpu(), "pvdgan", "digits8", mode, 10**6, tmp_path, turns=2, steps=2, warm_up_steps=2, settings=TINY)
    assert found.failure == ""
    assert found.images_per_second is not None
    assert found.step_seconds is not None
    assert found.images_per_second == pytest.approx(8 / found.step_seconds)
    assert found.peak_flops == (4e9 if mode.precision == "bf16" else 2e9)
    assert found.share_of_peak == pytest.approx(1e6 / found.step_seconds / found.peak_flops)
    assert len(found.bare_seconds) == 2
    assert found.peak_memory_bytes is None
    # the loop ended without a checkpoint
    assert not list(tmp_path.glob("**/*.safetensors"))


@pytest.mark.slow
def test_noise_is_made_where_a_preset_has_no_data(tmp_path: Path) -> None:
    settings = {**TINY, "data.name": "shards", "data.shape": "[3,16,16]", "network.widths": "[4,4]"}
    found = measure(cpu(), "dlsgan", "digits8", MODES[0], 10**6, tmp_path, 1, 1, warm_up_steps=1, settings=settings)
    assert found.failure == ""
    assert found.step_seconds is not None
    assert found.bare_seconds == ()
    assert (tmp_path / "3x16x16" / "dataset.json").exists()


@pytest.mark.slow
def test_a_graph_through_the_generator_is_measured_compiled(tmp_path: Path) -> None:
    """Of InvGAN's discriminator phase, which reproduces images."""
    mode = Mode("bf16+compile", "bf16", "aot_eager")
    found = measure(cpu(), "invgan", "digits8", mode, 10**6, tmp_path, 1, 1, warm_up_steps=1, settings=TINY)
    assert found.failure == ""
    assert found.images_per_second is not None
    assert found.cells()[-1] == "no loop by hand"


@pytest.mark.slow
def test_a_row_that_fails_shows_why_and_the_next_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def broken(*_: object) -> None:
        raise RuntimeError("no compiler\nmany lines")

    def row() -> Result:
        return measure(cpu(), "dlsgan", "digits8", MODES[0], 10**6, tmp_path, 1, 1, warm_up_steps=1, settings=TINY)

    with monkeypatch.context() as patch:
        patch.setattr(bench_gpu, "train", full)
        assert row().failure == "out of memory"
        patch.setattr(bench_gpu, "train", broken)
        assert row().failure == "failed: RuntimeError: no compiler"
    assert row().failure == ""


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason=HAS_GPU)
def test_without_a_gpu_the_table_reports_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--out", str(tmp_path)])
    monkeypatch.setattr(bench_gpu, "SHOWN", [bench_gpu.SHOWN[0], bench_gpu.SHOWN[-1]])
    bench_gpu.main()  # and ends with status 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("not measured" in line for line in lines) == 2 * 3 + 1
    # a missing ratio has a reason
    assert sum(line.endswith("no loop by hand") for line in lines) == 3
    kept = json.loads((tmp_path / "gpu.json").read_text())
    assert {each["failure"] for each in kept["results"]} == {"not measured"}
    assert all(each["flops"] > 10**12 for each in kept["results"])
    assert (tmp_path / "gpu.txt").read_text().splitlines() == lines
