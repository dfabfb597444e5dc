"""The benchmark's cases: the bundled digits like ``make train``, and larger images of noise."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from bare_loop import BareLoop, BareSettings, train_on
from PIL import Image
from turns import Loop

from latentscale.config import Config, load_config
from latentscale.methods.pvdgan import PVDGANSettings
from latentscale.methods.registry import METHODS
from latentscale.shards.dataset_writer import ShardsExist, write_shards
from latentscale.shards.sample import Sample
from latentscale.training.checks import plan_run
from latentscale.training.held_out import read_samples
from latentscale.training.loop import train
from latentscale.training.method_building import build_method

PRESETS = Path(__file__).resolve().parents[2] / "recipes" / "presets"
QUIET = {
    "telemetry.tensorboard": "false",
    "telemetry.progress": "false",
    "snapshot.every_steps": 0,
    "checkpoint.every_steps": 0,
    "evaluation.images": 16,
}
FOREVER_STEPS = 10**9


@dataclass
class Case:
    """Settings of a benchmark.

    Attributes:
        meaning: in words.
        settings: ``key=value`` of the configuration, on top of preset digits8.
        steps: of a turn.
        noise: ``(C, H, W)`` of made-up images, None for the bundled digits.
        remembered: False decodes every image in every epoch, as of data that do not fit in memory.
    """

    name: str
    meaning: str
    steps: int
    settings: dict[str, object] = field(default_factory=dict)
    noise: tuple[int, int, int] | None = None
    remembered: bool = True

    def config(self, method: str, folder: Path, **changes: object) -> Config:
        """The configuration of a method's run in ``folder/NAME``."""
        settings = {
            "training.steps": FOREVER_STEPS,
            **QUIET,
            **self.settings,
            **{name.replace("__", "."): value for name, value in changes.items()},
        }
        if self.noise:
            settings |= {
                "data.name": "shards",
                "data.path": noise_shards(folder, self.noise),
                "data.shape": list(self.noise),
            }
        arguments = [f"{name}={value}" for name, value in settings.items()]
        return load_config(METHODS[method].Settings, method, {"preset": "digits8"}, arguments, PRESETS)


_IMAGES32: dict[str, object] = {
    "latent.dim": 256,
    "network.widths": "[32,64,128]",
    "network.base_width": 128,
    "distributed.streams": 4,
    "method.r1": 3.0,
}
CASES = {
    "digits8": Case("digits8", "the bundled digits as `make train`, 8x8, batch 32", steps=20),
    "images32": Case(
        "images32",
        "images of 3x32x32, batch 8",
        steps=2,
        settings={**_IMAGES32, "training.batch": 8},
        noise=(3, 32, 32),
    ),
    "images32_decoded": Case(
        "images32_decoded",
        "the same, every image decoded in every epoch as of data that do not fit in memory",
        steps=2,
        settings={**_IMAGES32, "training.batch": 8},
        noise=(3, 32, 32),
        remembered=False,
    ),
    "images32_two_processes": Case(
        "images32_two_processes",
        "images of 3x32x32, two processes",
        steps=2,
        settings=_IMAGES32,
        noise=(3, 32, 32),
    ),
}


def noise_shards(folder: Path, shape: tuple[int, int, int]) -> Path:
    """A folder of 512 PNG images of noise, the slowest to decode of their size; created once, then reused."""
    out = folder / "shards"
    if not out.exists():
        channels, height, width = shape
        assert channels == 3
        labels = ["a", "b", "c", "d"]

        def samples() -> Iterator[Sample]:
            random = np.random.default_rng(0)
            for number in range(512):
                buffer = io.BytesIO()
                Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(buffer, format="PNG")
                yield Sample(buffer.getvalue(), "png", number % len(labels))

        with suppress(ShardsExist):  # another process was faster
            write_shards(samples(), out, name="noise", shape=shape, labels=labels, licence="CC0", shard_bytes=2**20)
    return out


def platform_loop(case: Case, method: str, folder: Path, run: str, **changes: object) -> Loop:
    """The platform's own loop, just as a recipe calls it."""
    config = case.config(method, folder, run__dir=folder / run, **changes)
    return lambda should_stop: train(config, METHODS[method], should_stop)


def bare_settings(config: Config) -> BareSettings:
    """The same numbers for the hand-written loop."""
    method, optimizer = config.method, config.optimizer
    assert isinstance(method, PVDGANSettings)
    assert (method.adversarial, method.r2, method.penalty_interval_steps) == ("nonsaturating", 0.0, 1)
    assert (optimizer.name, optimizer.weight_decay) == ("adam", 0.0)
    return BareSettings(
        latent_dim=config.latent.dim,
        r1=method.r1,
        learning_rate=optimizer.learning_rate,
        beta1=optimizer.beta1,
        beta2=optimizer.beta2,
        encoder_weight=method.encoder_weight,
        reconstruction_weight=method.reconstruction_weight,
        variance_start=method.variance_start,
        variance_decay=method.variance_decay,
        ema_decay=config.training.ema_decay,
    )


def bare_loop(case: Case, folder: Path) -> Loop:
    """The hand-written loop on the same networks, started from the same weights."""
    config = case.config("pvdgan", folder)
    plan = plan_run(config, METHODS["pvdgan"])
    networks = build_method(plan).networks
    loop = BareLoop(networks["generator"], networks["discriminator"], bare_settings(config))
    images = read_samples(plan.dataset, plan.dataset.count).float() / 127.5 - 1
    batch = config.training.batch

    def run(should_stop: Callable[[], bool]) -> None:
        train_on(loop, images, batch, should_stop)

    return run


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for runs, removed at the end with its content."""
    with TemporaryDirectory(prefix="latentscale-bench-") as folder:
        yield Path(folder)
