"""The training loop: named stages, from top to bottom.

A step is fetch, the phases in turn, the statistics' sums, and now and then report, snapshot, evaluate,
checkpoint. Everything it depends on is a function of (configuration, step) and the state in a checkpoint.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from latentscale.config import Config
from latentscale.data.worker_pool import start_fork_server
from latentscale.distributed.agreement import broadcast, gather_failure, require_agreement, run_on_rank_zero
from latentscale.distributed.engines import make_accelerator
from latentscale.distributed.exiting import exit_interrupted
from latentscale.distributed.fingerprint import refuse_divergence
from latentscale.distributed.heartbeat import HeartbeatMonitor, lost_contact
from latentscale.distributed.process_group import join_process_group, set_collective_timeout
from latentscale.distributed.statistics import LateFlags, global_means
from latentscale.distributed.topology import Topology, uses_gpu
from latentscale.errors import Interruption, UserError
from latentscale.methods.base import Method
from latentscale.methods.phase import Batch, Terms
from latentscale.telemetry.run_log import ProgressLine, tensorboard_logger
from latentscale.training.build import build
from latentscale.training.checkpoints import Checkpoint
from latentscale.training.feed import Feed
from latentscale.training.folder import RunFolder
from latentscale.training.health import Health, StageClock, mean_measured
from latentscale.training.keeper import Keeper
from latentscale.training.memory import keep_freed_memory
from latentscale.training.optimizers import rate_factor
from latentscale.training.outputs import Outputs
from latentscale.training.prepare import Preparation, prepare
from latentscale.training.refusals import nonfinite_failure, refuse_untrained, with_checkpoint
from latentscale.training.reports import SHOWN, Reports
from latentscale.training.skipped import SkippedSamples

LAST_WRITE_SECONDS = 86_400.0


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        step: steps taken.
        finished: whether all of ``training.steps`` are.
        folder: the run's folder.
        evaluation: what a finished run's last evaluation measured, on rank 0.
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
        Interruption: for what the same command may survive: another process has gone, or a disk is full.
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
    if not uses_gpu():
        keep_freed_memory()
    limits, topology = config.distributed, Topology.from_environment()
    # a process group that stood before, whoever made it, outlives the run
    ours = not dist.is_initialized()
    monitor = HeartbeatMonitor(topology.rank, limits.heartbeat_seconds, limits.timeout_seconds, exit_interrupted)
    try:
        with ExitStack() as afterwards:
            join_process_group(topology, limits.startup_timeout_seconds)
            accelerator = make_accelerator(
                limits.startup_timeout_seconds,
                log_with="tensorboard" if config.telemetry.tensorboard else None,
                project_dir=config.run.dir,
            )
            afterwards.callback(_end_training, accelerator, ours)
            afterwards.enter_context(monitor)
            identity = preparation.identity() if preparation else {}
            require_agreement({"configuration": config.to_yaml(), **identity}, refusal)
            assert preparation is not None
            # rank 0 alone touches the run's folder
            if folder := run_on_rank_zero(topology.rank, lambda: RunFolder(config, identity)):
                afterwards.callback(folder.close)
            return _train(preparation, accelerator, folder, monitor, afterwards, should_stop)
    except RuntimeError as error:
        if not lost_contact(error):
            raise
        raise monitor.interruption(error) from error


def _end_training(accelerator: Any, end_processes: bool) -> None:
    if end_processes:
        accelerator.end_training()
    else:
        for tracker in accelerator.trackers:
            tracker.finish()


def _train(
    preparation: Preparation,
    accelerator: Any,
    folder: RunFolder | None,
    monitor: HeartbeatMonitor,
    afterwards: ExitStack,
    should_stop: Callable[[], bool],
) -> Outcome:
    config, plan = preparation.config, preparation.plan
    rank, device, training = accelerator.process_index, accelerator.device, preparation.config.training

    # resume: rank 0 chose and read; the others are told
    resumed = folder.resumed if folder else None
    start: int = broadcast(resumed.step if resumed else 0)

    built = build(preparation, accelerator, start > 0, resumed.tensors if resumed else None)
    method, phases, state, statistics = built.method, built.phases, built.state, built.statistics
    if device.type == "cuda":
        monitor.stuck_seconds = config.distributed.startup_timeout_seconds
    health, clock, flags = Health(device), StageClock(device, monitor.enter), LateFlags(3, device)
    skipped_in_a_row = torch.zeros(1, device=device)

    progress = ProgressLine(training.steps, start, config.telemetry.progress and rank == 0, SHOWN)
    tell = progress.warn if rank == 0 else None
    skipping = config.data.on_error == "skip"
    unreadable = SkippedSamples(config.data.max_errors, broadcast(resumed.skipped if resumed else []), tell)
    outputs = Outputs(config, preparation, method, built.average, folder.snapshots, folder.model) if folder else None
    keeper = Keeper(config, folder, outputs, start, device, progress.warn) if folder and outputs else None
    if keeper:
        afterwards.callback(keeper.close)
    tensorboard = tensorboard_logger(accelerator, start) if config.telemetry.tensorboard else None
    reports = Reports(preparation, method, health, clock, keeper, tensorboard, progress)
    if folder and folder.moved_to:
        progress.say(f"moved the earlier run to {folder.moved_to}")
    for remark in method.remarks(config.method, training.steps):
        progress.say(f"note: {remark}")
    if start:
        progress.say(f"continuing {config.run.dir} from step {start:,}")

    def whole(step: int) -> Checkpoint | None:
        """All that a checkpoint holds, on rank 0; what several processes hold together, all must ask for."""
        if skipping:
            unreadable.join()
        refuse_divergence(state.replicated(), step)
        tensors = state.tensors()  # all processes may have to join what they hold
        if keeper is None:
            return None
        return Checkpoint(step, tensors, config.to_dict(), preparation.identity(), unreadable.samples())

    step, reported, evaluation = start, start, None
    stopping, failure = False, None
    factor, epoch_images = 1.0, preparation.dataset.count  # type: ignore[union-attr]
    with Feed(preparation, method, rank, device, built.dtype, start) as feed, progress:

        def failing() -> UserError | None:
            """What keeps this process from going on."""
            return feed.failure or (keeper.failure if keeper else None)

        def observe(terms: Terms, last: bool) -> None:
            statistics.observe(terms.observed)

        def observe_and_pack(terms: Terms, last: bool) -> Tensor | None:
            """All of a step is observed once its last forward pass is done: the sums travel with the gradients."""
            observe(terms, last)
            return statistics.pack(should_stop() or failing() is not None, unreadable.untold()) if last else None

        while step < training.steps and not stopping:
            monitor.step = step
            statistics_before = method.state()
            if (due_factor := rate_factor(config.optimizer, step * plan.batch, epoch_images)) != factor:
                factor = due_factor
                for phase in phases:
                    phase.scale_learning_rates(factor)
            with clock.stage("data", host=True):
                batches = feed.fetch(step, statistics_before)
                if feed.loader.skipped:
                    unreadable.take(feed.loader.skipped)
            batches = prepare_batches(method, batches, built.sums_dtype)

            skip: Tensor | None = None
            measured: dict[str, Tensor] = {}
            for phase in phases:
                with clock.stage(phase.phase.name):
                    results = phase.backward(batches, observe_and_pack if phase is phases[-1] else observe)
                    batches = [b._replace(kept={**b.kept, **r.kept}) for b, r in zip(batches, results, strict=True)]
                    if step == start:
                        refuse_untrained(phase)
                    phase.drop_frozen_gradients(batches[0].schedule)
                    norm = phase.gradient_norm()
                    # 1 where the norm is not finite (∞ − ∞ and NaN are not 0), and from then on in this step
                    nonfinite = ((norm - norm) != 0).to(torch.float32)
                    skip = nonfinite if skip is None else torch.maximum(skip, nonfinite)
                    phase.step(skip, norm)
                    measured |= mean_measured(phase.phase.name, results)
                    measured[f"{phase.phase.name}/gradient_norm"] = norm

            assert skip is not None
            with clock.stage("statistics"):
                apply = 1 - skip
                phases[-1].wait_for_piggyback()
                asked = statistics.finish(apply)
                built.average.update(apply)
                skipped_in_a_row = (skipped_in_a_row + skip) * skip
                health.add({**measured, "skipped_steps": skip})
                flags.put(torch.cat([asked.to(skip.dtype), skipped_in_a_row]))
            if step == start:
                # monitor, which can say who is missing, gives up first
                waits_seconds = config.distributed.timeout_seconds + 4 * config.distributed.heartbeat_seconds
                set_collective_timeout(waits_seconds)
                monitor.stuck_seconds = waits_seconds if device.type == "cuda" else None
            step += 1

            # a step late, so that nothing waits; before a checkpoint at once: it must not count what was spoiled
            keeping = due(step, config.checkpoint.every_steps)
            seen = flags.newest() if keeping else flags.previous()
            if seen is not None and seen[1] > 0:
                unreadable.join()
            failure = unreadable.failure() or nonfinite_failure(seen, training.max_nonfinite_steps, health)
            stopping = failure is not None or (seen is not None and seen[0] > 0)
            progress.advance(step)
            if step % training.report_every_steps == 0 or step == training.steps or stopping:
                if skipping:
                    unreadable.join()
                reports.write(step, step - reported, factor, unreadable.count if skipping else None)
                reported = step
            if step == training.steps or stopping:
                break
            pictured, measured_now = due(step, config.snapshot.every_steps), due(step, config.evaluation.every_steps)
            if keeper and (pictured or measured_now):
                with clock.stage("snapshots", host=True):
                    keeper.look(step, pictured, measured_now)
            if keeping:
                with clock.stage("checkpoint", host=True):
                    checkpoint = whole(step)
                    if keeper and checkpoint:
                        keeper.checkpoint(checkpoint)
            elif due(step, config.distributed.divergence_every_steps):
                refuse_divergence(state.replicated(), step)

        # the end, on all processes after the same step: what one of them could not do ends all, with what was reached
        if step > start:
            failure, spoiled = gather_failure(failing(), feed.spoiled, failure)
            step -= spoiled
            failure = failure or unreadable.failure()
            with clock.stage("checkpoint", host=True):
                checkpoint = whole(step)

                def write() -> None:
                    if keeper and checkpoint:
                        keeper.last_checkpoint(checkpoint, stopped=failure is None and step < training.steps)

                if failure:
                    # whoever says why the run ends has the others ended: not before the checkpoint stands, which may
                    # take longer than a step's collective may
                    set_collective_timeout(LAST_WRITE_SECONDS)
                    monitor.stuck_seconds, unwritten = None, None
                    try:
                        run_on_rank_zero(rank, write)
                    except Interruption as error:
                        unwritten = error
                    raise with_checkpoint(failure, step, unwritten)
                write()
    monitor.leave()
    finished = step >= training.steps
    if keeper:
        evaluation = keeper.finish(step, finished, taken=step - start)
    return Outcome(step, finished, Path(config.run.dir), evaluation)


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
