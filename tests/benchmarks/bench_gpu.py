"""Measures training of the 256² presets on one GPU: ``make bench-gpu``. Without a GPU the table says "not measured".

Presets are measured one after the other, each alone on the device, through the platform's own ``train``. Timing begins
and ends with a synchronisation, after steps that compile, choose algorithms and fill the allocator. PVDGAN is timed
between two runs of the hand-written loop (``bare_loop.py``), eager and in the same precision.
"""

import argparse
import gc
import io
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bare_loop import BareLoop
from bench import HERE, machine
from cases import PRESETS, QUIET, bare_settings, scratch
from columns import aligned
from flops import flops_of_a_step
from gpu_peaks import Peak, attainable, peak_of
from PIL import Image

from latentscale.config import Config, load_config
from latentscale.errors import UserError
from latentscale.methods.registry import METHODS
from latentscale.shards.dataset_writer import write_shards
from latentscale.shards.sample import Sample
from latentscale.training.checks import plan_run
from latentscale.training.loop import train
from latentscale.training.method_building import build_method

SHOWN = (("pvdgan", "afhq256"), ("dlsgan", "ffhq256"), ("cgpgan", "afhq256_cgpgan"), ("invgan", "ffhq256"))
BARE = "pvdgan"
IMAGES = 64
WARM_UP_STEPS = 10
LEAST_RATIO = 1.0
NOT_MEASURED = "not measured"
NO_BARE = "no loop by hand"


@dataclass(frozen=True)
class Mode:
    """How a preset is trained.

    Attributes:
        precision: of ``training.precision``.
        compile: of ``training.compile``, empty for eager.
    """

    name: str
    precision: str
    compile: str = ""


MODES = (Mode("fp32", "fp32"), Mode("bf16", "bf16"), Mode("bf16+compile", "bf16", "inductor"))


class Device:
    """The device to measure: a GPU, or in tests the CPU, which has no queue and no memory statistics."""

    def __init__(self, device: torch.device, name: str, peak: Peak | None) -> None:
        self.device, self.name, self.peak = device, name, peak
        self._gpu = device.type == "cuda"

    @classmethod
    def here(cls) -> "Device | None":
        """The first GPU; None without GPUs."""
        if not torch.cuda.is_available():
            return None
        name = torch.cuda.get_device_name(0)
        return cls(torch.device("cuda", 0), name, peak_of(name))

    def now(self) -> float:
        """The time in seconds, after all launched work has finished."""
        if self._gpu:
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def forget_peak_memory(self) -> None:
        if self._gpu:
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_memory_bytes(self) -> int | None:
        """Peak memory of tensors since the last reset; None on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) if self._gpu else None

    def clear(self) -> None:
        """Free the memory of the last measurement: tensors in reference cycles, cached blocks, compiled code."""
        gc.collect()
        torch._dynamo.reset()
        if self._gpu:
            torch.cuda.empty_cache()


@dataclass
class Timed:
    """Time and memory of a loop.

    Attributes:
        step_seconds: of each turn.
        peak_memory_bytes: within the turns; None on a CPU.
    """

    step_seconds: list[float]
    peak_memory_bytes: int | None

    @property
    def median(self) -> float:
        return statistics.median(self.step_seconds)


@dataclass
class Result:
    """A row of the table.

    Attributes:
        batch: images of a step.
        flops: of a step.
        step_seconds: None where nothing was measured.
        bare_seconds: of the hand-written loop, before and after; empty for other methods.
        peak_flops: per second, of the device in this precision; None where unknown.
        failure: why nothing was measured: no GPU, no memory, or what failed.
    """

    method: str
    preset: str
    mode: str
    batch: int
    flops: int
    step_seconds: float | None = None
    bare_seconds: tuple[float, ...] = ()
    peak_memory_bytes: int | None = None
    peak_flops: float | None = None
    failure: str = ""

    @property
    def images_per_second(self) -> float | None:
        return self.batch / self.step_seconds if self.step_seconds else None

    @property
    def share_of_peak(self) -> float | None:
        """FLOP of a step / seconds of a step / FLOP/s of the device."""
        if not self.step_seconds or not self.peak_flops:
            return None
        return self.flops / self.step_seconds / self.peak_flops

    @property
    def bare_ratio(self) -> float | None:
        """Images/s of the platform / images/s of the hand-written loop, the mean of its two runs."""
        if not self.step_seconds or not self.bare_seconds:
            return None
        return statistics.mean(self.bare_seconds) / self.step_seconds

    @property
    def against_itself(self) -> float | None:
        """The hand-written loop's second run / its first."""
        return self.bare_seconds[-1] / self.bare_seconds[0] if len(self.bare_seconds) > 1 else None

    def cells(self) -> list[str]:
        flops = f"{self.flops / 1e12:.3g}"
        start = [f"{self.method}, {self.preset}", self.mode, str(self.batch), flops]
        unknown = "-" if self.method == BARE else NO_BARE
        if self.failure:
            return [*start, self.failure, *["-"] * 3, unknown]
        memory, share, ratio = self.peak_memory_bytes, self.share_of_peak, self.bare_ratio
        shown = f"{ratio:.3f} (A/A {self.against_itself:.3f})" if ratio and self.against_itself else unknown
        return [
            *start,
            f"{self.images_per_second:.1f}",
            f"{1e3 * self.step_seconds:.1f}" if self.step_seconds else "-",
            f"{memory / 2**30:.2f}" if memory is not None else NOT_MEASURED,
            f"{share:.1%}" if share is not None else "peak unknown",
            shown,
        ]


class Enough(Exception):
    """Leaves the platform's loop without the checkpoint of a stopped run."""


class Stopwatch:
    """Called once per step: times turns of steps, after warm-up steps.

    Raises:
        Enough: after the last turn.
    """

    def __init__(self, device: Device, warm_up_steps: int, turns: int, steps: int) -> None:
        self._device, self._warm_up_steps, self._turns, self._steps = device, warm_up_steps, turns, steps
        self._asked = 0
        self._began = 0.0
        self.step_seconds: list[float] = []

    def __call__(self) -> bool:
        into = self._asked - self._warm_up_steps
        self._asked += 1
        if into < 0 or into % self._steps:
            return False
        # the end of a turn is the beginning of the next
        now = self._device.now()
        if into == 0:
            self._device.forget_peak_memory()
        else:
            self.step_seconds.append((now - self._began) / self._steps)
        if len(self.step_seconds) == self._turns:
            raise Enough
        self._began = now
        return False

    def time(self, loop: Callable[[Callable[[], bool]], object]) -> Timed:
        """Run a loop until all turns are measured."""
        with suppress(Enough):
            loop(self)
        if len(self.step_seconds) < self._turns:
            raise RuntimeError("the loop ended before it was measured")
        return Timed(self.step_seconds, self._device.peak_memory_bytes())


def noise(folder: Path, shape: tuple[int, ...], count: int) -> Path:
    """A folder of PNG images of noise; each is decoded once, then cached in memory."""
    out = folder / "x".join(map(str, shape))
    if out.exists():
        return out

    def samples() -> Iterator[Sample]:
        random = np.random.default_rng(0)
        for _ in range(count):
            pixels = random.integers(0, 256, (shape[1], shape[2], shape[0]), np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
            yield Sample(buffer.getvalue(), "png")

    write_shards(samples(), out, name="noise", shape=shape, labels=[], licence="CC0")
    return out


def configuration(method: str, preset: str, mode: Mode, settings: dict[str, object]) -> Config:
    """The configuration of a published preset, in a mode."""
    merged = {
        **QUIET, "training.precision": mode.precision, "training.compile": mode.compile, "training.steps": 10**9,
        **settings,
    }  # fmt: skip
    arguments = [f"preset={preset}", *(f"{name}={value}" for name, value in merged.items())]
    return load_config(METHODS[method].Settings, method, {}, arguments, PRESETS)


def platform_timed(config: Config, method: str, stopwatch: Stopwatch) -> Timed:
    """The platform's own loop, called like a recipe does."""
    return stopwatch.time(lambda should_stop: train(config, METHODS[method], should_stop))


def bare_timed(device: Device, config: Config, stopwatch: Stopwatch) -> Timed:
    """The hand-written loop, eager, with images and draws already on the device."""
    plan = plan_run(config, METHODS[BARE])
    networks = build_method(plan).networks
    generator, discriminator = (networks[name].to(device.device) for name in ("generator", "discriminator"))
    loop = BareLoop(generator, discriminator, bare_settings(config))
    batch, dim = config.training.batch, config.latent.dim
    images = torch.rand(IMAGES, *plan.shape, device=device.device) * 2 - 1
    autocast = config.training.precision == "bf16"

    def run(should_stop: Callable[[], bool]) -> None:
        while not should_stop():
            real = images[torch.randint(len(images), (batch,), device=device.device)]
            latent, drawn = (torch.randn(batch, dim, device=device.device) for _ in range(2))
            with torch.autocast(device.device.type, torch.bfloat16) if autocast else nullcontext():
                loop.step(real, latent, drawn)

    return stopwatch.time(run)


def counted(method: str, preset: str, settings: dict[str, object]) -> int:
    """FLOP of a step, the same in each mode."""
    return sum(flops_of_a_step(configuration(method, preset, MODES[0], settings), METHODS[method]).values())


def measure(
    device: Device | None,
    method: str,
    preset: str,
    mode: Mode,
    flops: int,
    folder: Path,
    turns: int,
    steps: int,
    warm_up_steps: int = WARM_UP_STEPS,
    settings: dict[str, object] | None = None,
) -> Result:
    """A row of the table; it shows a failure, so that the other rows are still measured.

    Args:
        flops: of a step.
        settings: ``key=value`` on top of the preset.
    """
    changed = settings or {}
    dry = configuration(method, preset, mode, changed)
    result = Result(method, preset, mode.name, dry.training.batch, flops)
    if device is None:
        result.failure = NOT_MEASURED
        return result
    if device.peak is not None:
        result.peak_flops = attainable(device.peak, mode.precision, torch.backends.cudnn.allow_tf32)

    def stopwatch() -> Stopwatch:
        return Stopwatch(device, warm_up_steps, turns, steps)

    def bare() -> tuple[float, ...]:
        device.clear()
        return (bare_timed(device, config, stopwatch()).median,) if method == BARE else ()

    try:
        if not dry.data.path and dry.data.name == "shards":
            changed = {**changed, "data.path": noise(folder, tuple(dry.data.shape), IMAGES)}
        run = folder / f"{method}-{preset}-{mode.name}"
        config = configuration(method, preset, mode, {**changed, "run.dir": run})
        before = bare()
        device.clear()
        timed = platform_timed(config, method, stopwatch())
        result.bare_seconds = before + bare()
        result.step_seconds, result.peak_memory_bytes = timed.median, timed.peak_memory_bytes
    except torch.OutOfMemoryError:
        result.failure = "out of memory"
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        result.failure = f"failed: {type(error).__name__}: {first[:80]}"
    # the error is freed only here, and with it the frames that hold the tensors
    device.clear()
    return result


def table(results: Sequence[Result]) -> list[str]:
    """Lines of aligned columns."""
    head = [
        "method, preset", "mode", "batch", "TFLOP/step", "images/s", "ms/step", "peak GiB", "of peak", "platform/bare",
    ]  # fmt: skip
    return aligned([head, *(each.cells() for each in results)])


def verdicts(results: Sequence[Result]) -> list[str]:
    """PASS or MISS of the bar for the compiled loop against the hand-written one."""
    lines = []
    for each in results:
        if "compile" not in each.mode or each.method != BARE:
            continue
        if each.bare_ratio is None:
            lines.append(f"  {NOT_MEASURED}: {each.method} {each.mode} / written by hand >= {LEAST_RATIO}")
            continue
        verdict = "PASS" if each.bare_ratio >= LEAST_RATIO else "MISS"
        lines.append(f"  {verdict}  {each.method} {each.mode} / written by hand {each.bare_ratio:.3f} >= {LEAST_RATIO}")
    return lines


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=positive, default=5, help="timed turns; their median counts")
    parser.add_argument("--steps", type=positive, default=20, help="steps per turn")
    parser.add_argument("--batch", type=positive, help="global batch (default: each preset's published batch)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of gpu.txt and gpu.json")
    options = parser.parse_args()
    device = Device.here()
    about: dict[str, Any] = machine(options.turns)
    if device is not None:
        about |= {"gpu": device.name, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        about |= {"peak": device.peak.source if device.peak else "unknown"}
    about |= {"fp32_convolutions": "tf32" if torch.backends.cudnn.allow_tf32 else "fp32"}
    lines = [
        "Training the 256x256 presets on one GPU: medians of turns, dense peak; bare: written by hand, eager",
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in about.items()),
    ]
    print("\n".join(lines), flush=True)
    settings: dict[str, object] = {"training.batch": options.batch} if options.batch else {}
    results = []
    with scratch() as folder:
        for method, preset in SHOWN:
            try:
                flops = counted(method, preset, settings)
            except UserError as error:  # a batch that cannot be divided
                parser.error(f"{method}, {preset}: {error}")
            for mode in MODES:
                found = measure(
                    device, method, preset, mode, flops, folder, options.turns, options.steps, settings=settings
                )
                results.append(found)
                if device is not None:  # print each row at once: compiling takes minutes
                    print("  ".join(found.cells()), flush=True)
    ending = [*table(results), *verdicts(results)]
    if device is None:
        ending.append("no GPU here: the operations are counted, and nothing else is measured")
    print("\n".join(ending))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu.txt").write_text("\n".join([*lines, *ending]) + "\n")
    record = {"machine": about, "results": [asdict(each) for each in results]}
    (options.out / "gpu.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
