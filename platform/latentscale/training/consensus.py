"""What all processes of a run agree on: when it ends and why, which samples it skips, how long one waits for another.

Most of it travels as signals with a step's gradients and is read one step late, so that no step waits for the device.
Other collectives happen only when all processes know of them: at fixed intervals, or because the signals ask for them.
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
    """Every process has one, and all call each method after the same step.

    Args:
        config: the run's.
        state: what the processes hold.
        skipped: the samples that the run had skipped by its last checkpoint, on every process.
        feed: says why this process has no more data, and which samples it could not read.
        recorder: says why this process cannot go on writing, and which terms are not finite.
        monitor: the heartbeat monitor; its limit on steps without progress is set here.
        should_stop: called once a step; True asks all processes to stop.

    Attributes:
        stopping: whether the run ends after the latest step.
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
        self._skipped = SkippedSamples(config.data.path, config.data.max_errors, skipped, recorder.warn)
        self._skipped_in_a_row = torch.zeros(1, device=self._device)
        self._flags = LateFlags(3, self._device)
        self._first_step = True
        self._failure: UserError | None = None
        self.stopping = False
        if self._device.type == "cuda":
            monitor.stuck_seconds = config.distributed.startup_timeout_seconds

    def signals(self) -> tuple[bool, int]:
        """This process's part of a step's signals: whether to stop, and how many samples it newly skipped."""
        self._skipped.add(self._feed.take_skipped())
        return self._should_stop() or self._own_failure() is not None, self._skipped.count_unannounced()

    def settle(self, result: StepResult, at_once: bool) -> None:
        """Read the signals of the previous step, and decide whether the run ends.

        Args:
            result: of the latest step.
            at_once: wait for the device and read the signals of the latest step: a checkpoint must not count steps
                that were skipped because a process had no data.
        """
        self._skipped_in_a_row = (self._skipped_in_a_row + result.skip) * result.skip
        self._flags.put(torch.cat([result.signals.to(result.skip.dtype), self._skipped_in_a_row]))
        if self._first_step:
            self._first_step = False
            self._shorten_timeouts()
        flags = self._flags.newest() if at_once else self._flags.previous()
        stop_requests, newly_skipped, nonfinite_steps = flags or (0, 0, 0)
        if newly_skipped > 0:
            self._skipped.join()
        self._failure = self._skipped.failure() or self._nonfinite_failure(nonfinite_steps)
        self.stopping = self._failure is not None or stop_requests > 0

    def skipped_samples(self) -> list[Skipped]:
        """All samples that the run has skipped, whichever process found them unreadable."""
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
        """What must hold before a checkpoint: the processes have the same state and know the same skipped samples.

        Returns:
            All samples that the run has skipped.

        Raises:
            UserError: see `refuse_divergence`.
        """
        skipped = self.skipped_samples()
        self.refuse_divergence(step)
        return skipped

    def conclude(self, step: int) -> int:
        """Agree on why the run ends and on the step that it has reached; a failure of one process ends all.

        Returns:
            ``step`` less the last steps, which all processes skipped because one had no data.
        """
        self._failure, steps_without_data = gather_failure(
            self._own_failure(), self._feed.steps_without_data, self._failure
        )
        self._failure = self._failure or self._skipped.failure()
        return step - steps_without_data

    def end(self, step: int, write: Callable[[bool], None]) -> None:
        """Write the run's last checkpoint, then raise the failure that ends the run, if there is one.

        Args:
            step: what `conclude` returned.
            write: writes the checkpoint on rank 0 and does nothing elsewhere; its argument is whether the run was asked
                to stop.

        Raises:
            UserError: why the run ends, on every process, naming the checkpoint that was written.
            Interruption: on rank 0 alone, if the checkpoint of a run without a failure cannot be written.
        """
        failure = self._failure
        if failure is None:
            write(step < self._config.training.steps)
            return
        # a launcher ends the other processes as soon as one has exited: so none may exit before the checkpoint is
        # complete, and writing it may take longer than a step's collective may
        set_collective_timeout(LAST_WRITE_SECONDS)
        self._monitor.stuck_seconds = None
        checkpoint = f"a checkpoint of step {step:,} was written"
        try:
            run_on_rank_zero(self._recorder.rank, lambda: write(False))
        except Interruption as error:
            checkpoint = str(error)
        final = type(failure)(f"{failure} ({checkpoint})")
        raise final.on_every_process() if failure.shared else final

    def _own_failure(self) -> UserError | None:
        """Why this process cannot go on."""
        return self._feed.failure or self._recorder.failure

    def _nonfinite_failure(self, nonfinite_steps: float) -> UserError | None:
        """Why to end after too many skipped steps in a row, naming the terms of all processes that are not finite."""
        limit_steps = self._config.training.max_nonfinite_steps
        if nonfinite_steps < limit_steps:
            return None
        found = sorted({name for names in all_gather(self._recorder.nonfinite_terms()) for name in names})
        # a gradient is not finite because a term is not; it is named only if every term is finite
        terms = [name for name in found if not name.endswith("/gradient_norm")] or found
        return UserError(
            f"{limit_steps} steps in a row were not finite and were skipped ({', '.join(terms) or 'a gradient'}): rerun"
            " with a lower optimizer.learning_rate to continue from the last checkpoint"
        ).on_every_process()

    def _shorten_timeouts(self) -> None:
        """Apply the limits of a step, once the first one, in which networks may be compiled, is over."""
        limits = self._config.distributed
        # the monitor gives up first, for it can name the missing process
        wait_seconds = limits.timeout_seconds + 4 * limits.heartbeat_seconds
        set_collective_timeout(wait_seconds)
        self._monitor.stuck_seconds = wait_seconds if self._device.type == "cuda" else None
