"""The training loop: set up; then per step fetch, step, record, and now and then draw, evaluate, checkpoint.

Everything it depends on is a function of (configuration, step) and the state in a checkpoint. All processes run the
same lines: what only rank 0 does is behind `Recorder`, what they must decide together is behind `Consensus`.
docs/training-loop.md explains the order that must be kept here.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentscale.config import Config
from latentscale.methods.base import Method
from latentscale.training.components import build_components
from latentscale.training.consensus import Consensus
from latentscale.training.feed import Feed
from latentscale.training.opened_run import open_run
from latentscale.training.processes import join_processes
from latentscale.training.recorder import Recorder
from latentscale.training.step import take_step


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        step: steps taken.
        finished: whether all of ``training.steps`` are.
        folder: the run's folder.
        evaluation: a finished run's last evaluation, on rank 0.
    """

    step: int
    finished: bool
    folder: Path
    evaluation: dict[str, Any] | None


def train(
    config: Config,
    method: type[Method],
    should_stop: Callable[[], bool] = lambda: False,
    make_recorder: Callable[..., Recorder] = Recorder,
) -> Outcome:
    """Train to ``training.steps``, continuing the run in ``run.dir`` if there is one.

    Args:
        config: the resolved configuration.
        method: the method's class; ``config.method`` is an instance of its Settings.
        should_stop: called once a step on every process; when any returns True, all stop after the same step, with a
            checkpoint.
        make_recorder: makes each process's recorder; a caller that wants to learn of reports and checkpoints gives its
            own, with the arguments of `Recorder`.

    Raises:
        UserError: for what the user can fix; the last checkpoint stays intact.
        Interruption: if the same command may succeed later: another process has died, or a disk is full.
    """
    with ExitStack() as stack:
        plan, accelerator, monitor = stack.enter_context(join_processes(config, method))
        run = stack.enter_context(open_run(plan))
        components = build_components(plan, accelerator, run.step > 0, run.tensors)
        recorder = stack.enter_context(make_recorder(plan, run, components, accelerator, monitor))
        step, steps, rank = run.step, config.training.steps, plan.topology.rank

        with Feed(plan, components.method, rank, accelerator.device, components.dtype, step) as feed:
            consensus = Consensus(config, components.state, run.skipped, feed, recorder, monitor, should_stop)
            while step < steps:
                recorder.begin_step(step)
                with recorder.stage("data", host=True):
                    batches = feed.fetch(step)
                first = step == run.step
                result = take_step(components, step, batches, consensus.signals, recorder.stage, first)
                step += 1
                recorder.record(step, result)

                checkpoint_due = due(step, config.checkpoint.every_steps)
                consensus.settle(result, at_once=checkpoint_due)
                ends = consensus.stopping or step == steps
                if ends or due(step, config.training.report_every_steps):
                    recorder.report(step, consensus.skipped_samples())
                if ends:
                    break
                recorder.draw_and_evaluate(
                    step, due(step, config.snapshot.every_steps), due(step, config.evaluation.every_steps)
                )
                if checkpoint_due:
                    with recorder.stage("checkpoint", host=True):
                        recorder.checkpoint(step, consensus.agree_on_state(step))
                elif due(step, config.distributed.divergence_every_steps):
                    consensus.refuse_divergence(step)

            # all processes end after the same step, with a checkpoint; a failure of one of them ends all
            if step > run.step:
                step = consensus.conclude(step)
                with recorder.stage("checkpoint", host=True):
                    write = recorder.last_checkpoint(step, consensus.agree_on_state(step))
                    consensus.end(step, write)
        monitor.leave()
        finished = step >= steps
        return Outcome(step, finished, Path(config.run.dir), recorder.finish(step, finished))


def due(step: int, every_steps: int) -> bool:
    """Whether something that is done every ``every_steps`` steps (0: never) is due after this one."""
    return every_steps > 0 and step % every_steps == 0
