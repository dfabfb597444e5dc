"""The training loop: named stages, from top to bottom.

A step is fetch, the phases in turn, the statistics' one all-reduce, and now and then report, snapshot, evaluate,
checkpoint. Everything it depends on is a function of (configuration, step) and the state in a checkpoint.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor

from latentscale.config import Config
from latentscale.data.workers import start_fork_server
from latentscale.distributed.agreement import agree, on_rank_zero, share
from latentscale.distributed.engines import DTYPES, distribute, make_accelerator
from latentscale.distributed.statistics import FusedStatistics, LateFlags, global_means
from latentscale.distributed.topology import Topology
from latentscale.errors import UserError
from latentscale.methods.base import Method
from latentscale.methods.phase import Batch
from latentscale.telemetry.run_log import MetricsFile, ProgressLine, tensorboard_logger
from latentscale.training.checkpoints import Checkpoint, save_checkpoint
from latentscale.training.ema import WeightAverage
from latentscale.training.feed import Feed
from latentscale.training.folder import RunFolder
from latentscale.training.health import Health, StageClock, mean_measured
from latentscale.training.memory import keep_freed_memory
from latentscale.training.optimizers import make_optimizer, rate_factor
from latentscale.training.outputs import Outputs
from latentscale.training.prepare import Preparation, prepare
from latentscale.training.refusals import refuse_nonfinite, refuse_untrained
from latentscale.training.skipped import SkippedSamples
from latentscale.training.state import TrainingState, broadcast_tensors

SHOWN = (
    "discriminator/adversarial",
    "generator/adversarial",
    "generator/encoder",
    "generator/reconstruction",
    "generator/latent",
    "discriminator/classification",
    "autoencoder/reconstruction",
    "classifier/classification",
    "encoder/encoder",
)


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        step: steps taken.
        finished: whether all of ``training.steps`` are.
        folder: the run's folder.
        evaluation: what the last evaluation measured, on rank 0.
    """

    step: int
    finished: bool
    folder: Path
    evaluation: dict[str, Any] | None


def train(config: Config, method: type[Method], should_stop: Callable[[], bool] = lambda: False) -> Outcome:
    """Train to ``training.steps``, continuing whatever ``run.dir`` holds.

    Args:
        config: the resolved configuration.
        method: the method's class; ``config.method`` is an instance of its Settings.
        should_stop: asked once a step on every process; when any says yes, all stop after the same step, with a
            checkpoint.

    Raises:
        UserError: for what the user can mend; the last checkpoint stays whole.
    """
    preparation, refusal = None, None
    try:
        preparation = prepare(config, method)
    except UserError as error:
        refusal = error
    if refusal and Topology.processes_launched() == 1:
        raise refusal
    if config.data.workers:
        start_fork_server()
    if not torch.cuda.is_available():
        keep_freed_memory()
    tracked = config.telemetry.tensorboard
    # a process group that stood before, whoever made it, outlives the run
    ours = not dist.is_initialized()
    accelerator = make_accelerator(
        config.distributed.timeout_seconds,
        log_with="tensorboard" if tracked else None,
        project_dir=config.run.dir,
    )
    folder = None
    try:
        identity = preparation.identity() if preparation else {}
        agree({"configuration": config.to_yaml(), **identity}, refusal)
        assert preparation is not None
        # rank 0 alone touches the run's folder
        folder = on_rank_zero(accelerator.process_index, lambda: RunFolder(config, identity))
        return _train(preparation, accelerator, folder, should_stop)
    finally:
        if folder is not None:
            folder.close()
        if ours:
            accelerator.end_training()
        else:
            for tracker in accelerator.trackers:
                tracker.finish()


def _train(
    preparation: Preparation, accelerator: Any, folder: RunFolder | None, should_stop: Callable[[], bool]
) -> Outcome:
    config, plan = preparation.config, preparation.plan
    rank, device, training = accelerator.process_index, accelerator.device, preparation.config.training

    # resume: rank 0 chose and read; the others are told
    resumed = folder.resumed if folder else None
    start: int = share(resumed.step if resumed else 0)

    # build
    dtype = DTYPES[training.precision]
    built = preparation.build_method()
    for network in built.networks.values():
        network.to(device, dtype)
    statistics_dtype = torch.float64 if training.precision == "fp64" else torch.float32
    for statistic in built.statistics.values():
        statistic.to(device, statistics_dtype)  # type: ignore[attr-defined]
    average = WeightAverage(built.networks, training.ema_decay, built.unaveraged)
    phases = [
        distribute(
            accelerator,
            phase,
            make_optimizer(config.optimizer, phase),
            training.precision,
            training.compile,
            engine=config.distributed.engine,
            zero=config.distributed.zero,
            offload_optimizer=config.distributed.offload_optimizer,
        )
        for phase in built.phases
    ]
    state = TrainingState(built, average, phases)
    if start:
        state.load(broadcast_tensors(resumed.tensors if resumed else None, device))
        if resumed:
            resumed.tensors.clear()
    statistics = FusedStatistics(built.statistics, device, statistics_dtype)
    health, clock, flags = Health(device), StageClock(device), LateFlags(3, device)
    skipped_in_a_row = torch.zeros(1, device=device)

    outputs = Outputs(config, preparation, built, average, folder.snapshots, folder.model) if folder else None
    metrics = MetricsFile(folder.metrics, start) if folder else None
    tensorboard = tensorboard_logger(accelerator, start) if config.telemetry.tensorboard else None
    progress = ProgressLine(training.steps, start, config.telemetry.progress and rank == 0, SHOWN)
    if folder and folder.moved_to:
        progress.say(f"moved the earlier run to {folder.moved_to}")
    for remark in preparation.method.remarks(config.method, training.steps):
        progress.say(f"note: {remark}")
    if start:
        progress.say(f"continuing {config.run.dir} from step {start:,}")
    skipping = config.data.on_error == "skip"
    unreadable = SkippedSamples(
        config.data.max_errors, share(resumed.skipped if resumed else []), progress.warn if rank == 0 else None
    )

    def checkpoint(step: int) -> None:
        if skipping:
            unreadable.join()
        tensors = state.tensors()  # all processes may have to join what they hold
        if folder is None:
            return
        whole = Checkpoint(step, tensors, config.to_dict(), preparation.identity(), unreadable.samples())
        try:
            save_checkpoint(folder.checkpoints, whole, config.checkpoint.keep)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"the checkpoint of step {step} cannot be written to {folder.checkpoints} ({error}): make room there,"
                " then run the same command to continue from the last one"
            ) from None

    def report(step: int, steps: int) -> None:
        values = health.join()
        if skipping:
            unreadable.join()
            values["data/skipped_samples"] = unreadable.count
        seconds = clock.read()
        images = steps * plan.batch
        record: dict[str, Any] = {
            "step": step,
            "images": step * plan.batch,
            "epoch": step * plan.batch / epoch_images,
            "learning_rate_factor": factor,
            **values,
            **{name: float(value) for name, value in built.summary().items()},
            **{f"seconds/{stage}": value for stage, value in seconds.items()},
            "images_per_second": images / seconds["total"],
            **{f"images_per_second/{stage}": images / max(value, 1e-9) for stage, value in seconds.items()},
        }
        if metrics:
            metrics.write(record)
        if tensorboard:
            tensorboard(record, step)
        progress.report(step, record)

    step, stopping, evaluation, reported = start, False, None, start
    factor, epoch_images = 1.0, preparation.dataset.count  # type: ignore[union-attr]
    finished = start >= training.steps
    with Feed(preparation, built, rank, device, dtype, start) as feed, progress:
        while step < training.steps and not stopping:
            statistics_before = built.state()
            if (due_factor := rate_factor(config.optimizer, step * plan.batch, epoch_images)) != factor:
                factor = due_factor
                for phase in phases:
                    phase.scale_learning_rates(factor)
            with clock.stage("data", host=True):
                batches = feed.fetch(step, statistics_before)
                if feed.loader.skipped:
                    unreadable.take(feed.loader.skipped)
            batches = prepare_batches(built, batches, statistics_dtype)

            skip: Tensor | None = None
            measured: dict[str, Tensor] = {}
            for phase in phases:
                with clock.stage(phase.phase.name):
                    results = phase.backward(batches)
                    batches = [b._replace(kept={**b.kept, **r.kept}) for b, r in zip(batches, results, strict=True)]
                    for result in results:
                        statistics.observe(result.observed)
                    if phase is phases[-1]:
                        statistics.launch(should_stop(), unreadable.untold())
                    if step == start:
                        refuse_untrained(phase)
                    phase.let_sleep(batches[0].schedule)
                    norm = phase.gradient_norm()
                    # 1 where the norm is not finite (∞ − ∞ and NaN are not 0), and from then on in this step
                    nonfinite = ((norm - norm) != 0).to(torch.float32)
                    skip = nonfinite if skip is None else torch.maximum(skip, nonfinite)
                    phase.step(skip)
                    measured |= mean_measured(phase.phase.name, results)
                    measured[f"{phase.phase.name}/gradient_norm"] = norm

            assert skip is not None
            with clock.stage("statistics"):
                apply = 1 - skip
                asked = statistics.finish(apply)
                average.update(apply)
                skipped_in_a_row = (skipped_in_a_row + skip) * skip
                health.add({**measured, "skipped_steps": skip})
                flags.put(torch.cat([asked.to(skip.dtype), skipped_in_a_row]))
            step += 1

            late = flags.previous()
            stopping = late is not None and late[0] > 0
            if late is not None and late[1] > 0:
                unreadable.join()
            refuse_nonfinite(late, training.max_nonfinite_steps, health)
            progress.advance(step)
            if step % training.report_every_steps == 0 or step == training.steps or stopping:
                report(step, step - reported)
                reported = step
            if outputs and due(step, config.snapshot.every_steps) and step < training.steps:
                with clock.stage("snapshots", host=True):
                    outputs.snapshot(step)
            if outputs and metrics and due(step, config.evaluation.every_steps) and step < training.steps:
                with clock.stage("evaluation", host=True):
                    evaluation = outputs.evaluate(step)
                    metrics.write({"step": step, **{f"evaluation/{k}": v for k, v in evaluation.items()}})
            if due(step, config.checkpoint.every_steps) or stopping or step == training.steps:
                with clock.stage("checkpoint", host=True):
                    checkpoint(step)

    if outputs and metrics:
        outputs.export(step)
        if step >= training.steps:
            evaluation = outputs.evaluate(step)
            outputs.snapshot(step)
            if not finished:
                metrics.write({"step": step, **{f"evaluation/{k}": v for k, v in evaluation.items()}})
        metrics.close()
    return Outcome(step, step >= training.steps, Path(config.run.dir), evaluation)


@torch.no_grad()
def prepare_batches(method: Method, batches: list[Batch], dtype: torch.dtype) -> list[Batch]:
    """What the method must know of the global batch before the step's first phase, as data in ``kept``."""
    samples = [method.prepare(batch) for batch in batches]
    if not samples[0]:
        return batches
    means = global_means(samples, dtype)
    return [
        batch._replace(kept=method.prepared(batch, own, means)) for batch, own in zip(batches, samples, strict=True)
    ]


def due(step: int, every_steps: int) -> bool:
    """Whether something that happens every so many steps (0: never) happens after this one."""
    return every_steps > 0 and step % every_steps == 0
