"""What all processes of a run agree on: when it ends and why, which samples it skips, how long one waits for another.

Most of it travels as signals with a step's gradients and is read one step late, so that no step waits. Collectives of
its own happen only where all processes know that they do: at intervals, or because the signals say so.
"""

from collections.abc import Callable

import torch

from latentscale.config import Config
from latentscale.data.unreadable_samples import Skipped
from latentscale.distributed.agreement import all_gather, gather_failure, run_on_rank_zero
from latentscale.distributed.fingerprint import refuse_divergence
from latentscale.distributed.heartbeat import HeartbeatMonitor
from latentscale.distributed.process_group import set_collective_timeout
from latentscale.distributed.statistics import LateFlags
from latentscale.errors import Interruption, UserError
from latentscale.training.feed import Feed
from latentscale.training.recorder import Recorder
from latentscale.training.skipped_samples import SkippedSamples
from latentscale.training.state import TrainingState
from latentscale.training.step import StepResult

LAST_WRITE_SECONDS = 86_400.0


class Consensus:
    """Every process has one, and calls each method after the same step as the others; `signals` alone is local.

    Args:
        config: the run's.
        state: what the processes hold.
        skipped: the samples that the run had skipped by its last checkpoint, on every process.
        feed: knows why this process has no more data, and which samples it could not read.
        recorder: knows why this process can write nothing more, and which terms are not finite.
        monitor: told how long no process may come further.
        should_stop: asked once a step.

    Attributes:
        stopping: whether the run ends after the step that was settled last.
    """

    def __init__(
        self,
        config: Config,
        state: TrainingState,
        skipped: list[Skipped],
        feed: Feed,
        recorder: Recorder,
        monitor: HeartbeatMonitor,
        should_stop: Callable[[], bool],
    ) -> None:
        self._config, self._state, self._monitor = config, state, monitor
        self._feed, self._recorder, self._should_stop = feed, recorder, should_stop
        self._device = feed.device
        self._may_skip = config.data.on_error == "skip"
        self._skipped = SkippedSamples(config.data.max_errors, skipped, recorder.warn)
        self._skipped_in_a_row = torch.zeros(1, device=self._device)
        self._flags = LateFlags(3, self._device)
        self._settled_any = False
        self._failure: UserError | None = None
        self.stopping = False
        if self._device.type == "cuda":
            monitor.stuck_seconds = config.distributed.startup_timeout_seconds

    def signals(self) -> tuple[bool, int]:
        """What this process tells the others with a step: whether to stop, and how many samples it newly skipped."""
        self._skipped.add(self._feed.take_skipped())
        return self._should_stop() or self._own_failure() is not None, self._skipped.count_unannounced()

    def settle(self, result: StepResult, at_once: bool) -> None:
        """Read what the processes told one another, a step late, and decide whether the run ends.

        Args:
            at_once: read what they told with this step, and wait for it: a checkpoint must not count steps that were
                skipped because a process had no data.
        """
        self._skipped_in_a_row = (self._skipped_in_a_row + result.skip) * result.skip
        self._flags.put(torch.cat([result.signals.to(result.skip.dtype), self._skipped_in_a_row]))
        if not self._settled_any:
            self._settled_any = True
            self._shorten_timeouts()
        told = self._flags.newest() if at_once else self._flags.previous()
        stops, skipped_samples, nonfinite_steps = told or (0, 0, 0)
        if skipped_samples > 0:
            self._skipped.join()
        self._failure = self._skipped.failure() or self._nonfinite_failure(nonfinite_steps)
        self.stopping = self._failure is not None or stops > 0

    def skipped_samples(self) -> list[Skipped]:
        """The samples that all processes skipped so far."""
        if self._may_skip:
            self._skipped.join()
        return self._skipped.samples()

    def refuse_divergence(self, step: int) -> None:
        """Compare the processes' weights, averages and statistics.

        Raises:
            UserError: on every process, where they are not the same bit for bit.
        """
        refuse_divergence(self._state.replicated(), step)

    def agree_on_state(self, step: int) -> list[Skipped]:
        """Before a checkpoint: all hold the same state and know the same skipped samples, which are returned.

        Raises:
            UserError: see `refuse_divergence`.
        """
        skipped = self.skipped_samples()
        self.refuse_divergence(step)
        return skipped

    def conclude(self, step: int) -> int:
        """Agree on why the run ends, and on the step that it has reached: what one process failed at ends all.

        Returns:
            ``step`` without the last steps, in which a process had no data, so that all skipped them.
        """
        self._failure, steps_without_data = gather_failure(
            self._own_failure(), self._feed.steps_without_data, self._failure
        )
        self._failure = self._failure or self._skipped.failure()
        return step - steps_without_data

    def end(self, step: int, write: Callable[[bool], None]) -> None:
        """Have the run's last checkpoint written.

        Args:
            step: what `conclude` returned.
            write: writes it on rank 0, and nothing elsewhere; told whether the run was asked to stop.

        Raises:
            UserError: why the run ends, on every process, naming the checkpoint that stands.
            Interruption: on rank 0 alone, where the checkpoint of a run that ends well cannot be written.
        """
        failure = self._failure
        if failure is None:
            write(step < self._config.training.steps)
            return
        # a launcher ends the other processes as soon as one has said why the run ends: not before the checkpoint
        # stands, which may take longer than a step's collective may
        set_collective_timeout(LAST_WRITE_SECONDS)
        self._monitor.stuck_seconds = None
        checkpoint = f"a checkpoint of step {step:,} stands"
        try:
            run_on_rank_zero(self._recorder.rank, lambda: write(False))
        except Interruption as error:
            checkpoint = str(error)
        told = type(failure)(f"{failure} ({checkpoint})")
        raise told.on_every_process() if failure.shared else told

    def _own_failure(self) -> UserError | None:
        """What keeps this process from going on."""
        return self._feed.failure or self._recorder.failure

    def _nonfinite_failure(self, nonfinite_steps: float) -> UserError | None:
        """Why to end after too many skipped steps in a row, naming the terms of all processes that are not finite."""
        limit_steps = self._config.training.max_nonfinite_steps
        if nonfinite_steps < limit_steps:
            return None
        found = sorted({name for names in all_gather(self._recorder.nonfinite_terms()) for name in names})
        # a gradient is not finite because a term is; by itself it is named where none is
        terms = [name for name in found if not name.endswith("/gradient_norm")] or found
        return UserError(
            f"{limit_steps} steps in a row were not finite and were skipped ({', '.join(terms) or 'a gradient'}): rerun"
            " with a lower optimizer.learning_rate to continue from the last checkpoint"
        ).on_every_process()

    def _shorten_timeouts(self) -> None:
        """The first step, in which networks may be compiled, is over: from now on every step must be quick."""
        limits = self._config.distributed
        # the monitor, which can say who is missing, gives up first
        wait_seconds = limits.timeout_seconds + 4 * limits.heartbeat_seconds
        set_collective_timeout(wait_seconds)
        self._monitor.stuck_seconds = wait_seconds if self._device.type == "cuda" else None
