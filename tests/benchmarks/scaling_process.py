"""One process of a group whose steps are timed by ``bench_scaling.py``, which sends commands on standard input.

It trains through the platform's own ``train``. The method is PVDGAN with its networks, optimizers, statistics, draws
and data, but its phases sleep instead of computing: forward takes a known time, and backward fills every gradient. Each
command is done by all processes of a group together, while each waits where the loop asks whether to stop:

``calibrate``  measure by how much a sleep is too long, and from then on sleep so much less
``bare K``     K steps of a hand-written loop: the same phases under DDP, fused Adam, an average of the weights
``reduce K``   K times an all-reduce of each phase's gradients, and nothing else
``train K``    K steps of the platform
``count K``    K steps of the platform with its collectives written down by torch's profiler
``stop``       end the run

Replies are lines of JSON on standard output.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile

from latentscale.config import Config, load_config
from latentscale.distributed.exiting import exit_process
from latentscale.latents.priors import Prior
from latentscale.methods import pvdgan
from latentscale.methods.phase import Batch, Terms
from latentscale.networks.spec import ModelSpec
from latentscale.training.checks import plan_run
from latentscale.training.loop import train
from latentscale.training.method_building import build_method

PRESETS = Path(__file__).resolve().parents[2] / "recipes" / "presets"
STREAMS = 4
# every turn of so many steps has a report in it; the default is 50, the published presets' 100
REPORT_EVERY_STEPS = 20
SETTINGS: dict[str, object] = {
    "training.steps": 10**9,
    "training.batch": 16,
    "training.report_every_steps": REPORT_EVERY_STEPS,
    "distributed.streams": STREAMS,
    "latent.dim": 64,
    "network.widths": "[8]",
    "network.base_width": 16,
    "checkpoint.every_steps": 0,
    "snapshot.every_steps": 0,
    "evaluation.images": 16,
    "telemetry.tensorboard": "false",
    "telemetry.progress": "false",
}
PHASES = 2
CALIBRATION_SLEEPS = 21


class Sleeper:
    """Sleeps for a given time, corrected for the measured overshoot of the system."""

    def __init__(self) -> None:
        self.share_seconds = 0.0
        self.overshoot_seconds = 0.0

    def calibrate(self) -> dict[str, float]:
        """Seconds that a plain sleep is too long, and that one is from now on; medians."""
        self.overshoot_seconds = 0.0
        self.overshoot_seconds = self._too_long()
        return {"plain_overshoot_seconds": self.overshoot_seconds, "left_overshoot_seconds": self._too_long()}

    def sleep(self) -> None:
        """One phase's share of the step."""
        time.sleep(max(0.0, self.share_seconds - self.overshoot_seconds))

    def _too_long(self) -> float:
        found = []
        for _ in range(CALIBRATION_SLEEPS):
            began = time.perf_counter()
            self.sleep()
            found.append(time.perf_counter() - began - self.share_seconds)
        return statistics.median(found)


SLEEPER = Sleeper()


class FilledGradients(torch.autograd.Function):
    """0 as a function of all parameters, whose gradients are there already."""

    @staticmethod
    def forward(ctx: Any, gradients: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return parameters[0].new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Any, ...]:
        return (None, *ctx.gradients)


class Sleeping:
    """What both phases do instead of computing."""

    owned_parameters: list[nn.Parameter]
    _gradients: list[Tensor] | None = None

    def asleep_terms(self, batch: Batch, observed: Tensor) -> Terms:
        if self._gradients is None:
            self._gradients = [torch.full_like(parameter, 1e-3) for parameter in self.owned_parameters]
        SLEEPER.sleep()
        loss = FilledGradients.apply(self._gradients, *self.owned_parameters)
        return Terms(loss, {}, {"variance": observed}, {"adversarial": loss.detach()})


class DiscriminatorPhase(Sleeping, pvdgan.DiscriminatorPhase):
    def forward(self, batch: Batch) -> Terms:
        return self.asleep_terms(batch, batch.draws["discriminator_latent"])


class GeneratorPhase(Sleeping, pvdgan.GeneratorPhase):
    def forward(self, batch: Batch) -> Terms:
        return self.asleep_terms(batch, batch.draws["generator_latent"])


class SleepingPVDGAN(pvdgan.PVDGAN):
    """PVDGAN without its computation."""

    def __init__(
        self, settings: pvdgan.PVDGANSettings, networks: Mapping[str, nn.Module], prior: Prior, spec: ModelSpec
    ) -> None:
        super().__init__(settings, networks, prior, spec)
        g, d = {"generator": networks["generator"]}, {"discriminator": networks["discriminator"]}
        self.phases = [DiscriminatorPhase(d, g, settings), GeneratorPhase(g, d, settings)]


def configuration(folder: Path, processes: int) -> Config:
    """Of a group's run in a folder; the same steps for any number of processes."""
    settings = {**SETTINGS, "run.dir": folder, "distributed.processes": processes}
    arguments = [f"{name}={value}" for name, value in settings.items()]
    return load_config(pvdgan.PVDGAN.Settings, "pvdgan", {"preset": "digits8"}, arguments, PRESETS)


def sent_bytes(interface: str) -> int:
    """What this process's namespace has sent through an interface, headers included; 0 without one of its own."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if interface and name.strip() == interface:
            return int(counters.split()[8])
    return 0


class HandWritten:
    """A training loop as one writes it by hand: what every loop must do, and what the platform's is held against."""

    def __init__(self, config: Config) -> None:
        plan = plan_run(config, SleepingPVDGAN)
        method, steps, rates = build_method(plan), plan.steps, config.optimizer
        draws = {name: torch.zeros(steps.process_batch, draw.size) for name, draw in method.draws().items()}
        self._batch = Batch(torch.empty(0), draws, steps.microbatch_streams, False)
        self._parameters = [list(phase.parameters()) for phase in method.phases]
        self._averages = [[p.detach().clone() for p in parameters] for parameters in self._parameters]
        self._optimizers = [
            torch.optim.Adam(p, rates.learning_rate, betas=(rates.beta1, rates.beta2), fused=True)
            for p in self._parameters
        ]
        self._several = dist.is_initialized() and dist.get_world_size() > 1
        self._phases: list[nn.Module] = [
            DistributedDataParallel(phase, broadcast_buffers=False, gradient_as_bucket_view=True)
            if self._several
            else phase
            for phase in method.phases
        ]
        self._gradients = [torch.zeros(sum(p.numel() for p in parameters)) for parameters in self._parameters]
        self._decay = config.training.ema_decay

    def step(self) -> None:
        """Both phases: forward, backward, Adam; then the average of the weights."""
        for phase, optimizer in zip(self._phases, self._optimizers, strict=True):
            optimizer.zero_grad()
            phase(self._batch).loss.backward()
            optimizer.step()
        with torch.no_grad():
            for averages, parameters in zip(self._averages, self._parameters, strict=True):
                torch._foreach_lerp_(averages, parameters, 1 - self._decay)

    def reduce(self) -> None:
        """What of a step goes through the network for the gradients."""
        for gradients in self._gradients if self._several else ():
            dist.all_reduce(gradients)


def seconds_each(act: Callable[[], None], times: int) -> dict[str, float]:
    """Seconds of each of so many times, after one that is not timed, and this process's own on its cores."""
    act()
    began, began_cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        act()
    return {
        "seconds": (time.perf_counter() - began) / times,
        "cpu_seconds": (time.process_time() - began_cpu) / times,
    }


class Conductor:
    """Called once per step to ask for a stop; it waits for commands there and executes them.

    Args:
        config: of the run.
        interface: whose bytes are counted, empty for none.
    """

    def __init__(self, config: Config, interface: str) -> None:
        self._config = config
        self._interface = interface
        self._by_hand: HandWritten | None = None
        self._replies = os.fdopen(os.dup(1), "w", buffering=1)
        # other output must not look like a reply
        os.dup2(2, 1)
        self._stopped = False
        self._asked = 0
        self._steps = 0
        self._began_seconds = self._began_cpu_seconds = 0.0
        self._began_bytes = 0
        self._profiler: Any = None

    def __call__(self) -> bool:
        now = time.perf_counter()
        if self._stopped:  # the loop asks once more: it learns one step late that it is to stop
            return True
        if self._steps:
            self._asked += 1
            # the first step after a command is not timed: processes reach it at different times
            if self._asked == 1:
                self._began_seconds, self._began_bytes = now, sent_bytes(self._interface)
                self._began_cpu_seconds = time.process_time()
                if self._profiler is not None:
                    self._profiler.start()
            if self._asked <= self._steps:
                return False
            self._reply(self._turn(now))
            self._steps = 0
        else:
            self._reply({"ready": True})
        return self._obey()

    def _turn(self, now: float) -> dict[str, Any]:
        if self._profiler is None:
            sent = sent_bytes(self._interface) - self._began_bytes
            return {
                "seconds": (now - self._began_seconds) / self._steps,
                "cpu_seconds": (time.process_time() - self._began_cpu_seconds) / self._steps,
                "sent_bytes": sent / self._steps,
            }
        self._profiler.stop()
        found: list[int] = [
            sum(math.prod(shape) for shape in event.input_shapes)
            for event in self._profiler.events()
            if event.name.startswith("gloo:")
        ]
        self._profiler = None
        return {"elements": found}

    def _obey(self) -> bool:
        for line in sys.stdin:
            command, _, number = line.strip().partition(" ")
            if command == "stop":
                break
            if command == "calibrate":
                self._reply(SLEEPER.calibrate())
            elif command in ("bare", "reduce"):
                # the process group exists only now
                self._by_hand = self._by_hand or HandWritten(self._config)
                once = self._by_hand.step if command == "bare" else self._by_hand.reduce
                self._reply(seconds_each(once, int(number)))
            elif command in ("train", "count"):
                self._steps, self._asked = int(number), 0
                if command == "count":
                    self._profiler = profile(activities=[ProfilerActivity.CPU], record_shapes=True)
                return False
            else:
                raise ValueError(f"no such command: {line!r}")
        self._stopped = True
        return True

    def _reply(self, value: dict[str, Any]) -> None:
        self._replies.write(json.dumps(value) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--compute-seconds", type=float, required=True)
    parser.add_argument("--interface", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    SLEEPER.share_seconds = options.compute_seconds / PHASES
    config = configuration(options.folder, options.processes)
    train(config, SleepingPVDGAN, Conductor(config, options.interface))
    sys.stderr.flush()
    exit_process()


if __name__ == "__main__":
    main()
