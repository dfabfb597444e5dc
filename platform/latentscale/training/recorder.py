"""What is written down of a run: reports, pictures, evaluations, checkpoints, and how long everything took.

The loop tells it what happens and does not know what becomes of it: whatever else is to be told of a run hangs here.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from latentscale.data.unreadable_samples import Skipped
from latentscale.distributed.agreement import run_on_rank_zero
from latentscale.distributed.heartbeat import HeartbeatMonitor
from latentscale.errors import UserError
from latentscale.telemetry.run_log import ProgressLine, tensorboard_logger
from latentscale.training.checkpoints import Checkpoint
from latentscale.training.components import Components
from latentscale.training.health import Health, StageClock
from latentscale.training.model_outputs import ModelOutputs
from latentscale.training.opened_run import OpenedRun
from latentscale.training.plan import RunPlan
from latentscale.training.run_writer import RunWriter
from latentscale.training.step import StepResult

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
"""Values of a report that the progress line shows."""


class Recorder:
    """Every process has one; rank 0 alone writes into the run's folder and on the terminal.

    All processes call `report`, `checkpoint` and `last_checkpoint` after the same step, for what they hold is joined
    there. Nothing else needs the others.

    Args:
        run: what the run continues from, with its folder on rank 0.
        monitor: told the step and its stage.

    Raises:
        UserError: on every process, where rank 0 cannot write.
    """

    def __init__(
        self, plan: RunPlan, run: OpenedRun, components: Components, accelerator: Any, monitor: HeartbeatMonitor
    ) -> None:
        self._plan, self._run, self._components, self._monitor = plan, run, components, monitor
        self._device = accelerator.device
        self._health = Health(self._device)
        self._clock = StageClock(self._device, monitor.enter)
        self._reported_step = run.step
        telemetry, steps = plan.config.telemetry, plan.config.training.steps
        self._progress = ProgressLine(steps, run.step, telemetry.progress and self.rank == 0, SHOWN)
        self._writer = run_on_rank_zero(self.rank, self._open_writer)
        self._tensorboard = tensorboard_logger(accelerator, run.step) if telemetry.tensorboard else None

    def __enter__(self) -> "Recorder":
        config, folder = self._plan.config, self._run.folder
        if folder and folder.moved_to:
            self._progress.say(f"moved the earlier run to {folder.moved_to}")
        for remark in self._plan.method.remarks(config.method, config.training.steps):
            self._progress.say(f"note: {remark}")
        if self._run.step:
            self._progress.say(f"continuing {config.run.dir} from step {self._run.step:,}")
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._writer:
            self._writer.close()

    @property
    def rank(self) -> int:
        """Of this process."""
        return self._plan.topology.rank

    @property
    def failure(self) -> UserError | None:
        """Why this process can go on writing no more, such as held-out data that are damaged."""
        return self._writer.failure if self._writer else None

    def nonfinite_terms(self) -> list[str]:
        """Names of this process's values of the last step that are not finite; waits for the device."""
        return self._health.nonfinite()

    def warn(self, text: str) -> None:
        """Show the user a line, on rank 0."""
        if self.rank == 0:
            self._progress.warn(text)

    def begin_step(self, step: int) -> None:
        """A step begins, after so many."""
        self._monitor.step = step

    def stage(self, name: str, host: bool = False) -> AbstractContextManager[None]:
        """Time a part of a step; ``host`` for what happens on the CPU alone."""
        return self._clock.stage(name, host)

    def record(self, step: int, result: StepResult) -> None:
        """So many steps are taken, the last one with this result; waits for nothing."""
        self._health.add({**result.measured, "skipped_steps": result.skip})
        self._progress.advance(step)

    def report(self, step: int, skipped: Sequence[Skipped]) -> None:
        """Join what the processes measured since the last report, and write it down.

        Args:
            skipped: samples that the run has skipped so far.
        """
        config, batch = self._plan.config, self._plan.steps.batch
        values = self._health.join()
        if config.data.on_error == "skip":
            values["data/skipped_samples"] = len(skipped)
        seconds = self._clock.read()
        images = (step - self._reported_step) * batch
        self._reported_step = step
        record: dict[str, Any] = {
            "step": step,
            "images": step * batch,
            "epoch": step * batch / self._plan.dataset.count,
            "learning_rate_factor": self._components.rates.factor,
            **values,
            **{name: float(value) for name, value in self._components.method.summary().items()},
            **{f"seconds/{stage}": value for stage, value in seconds.items()},
            "images_per_second": images / seconds["total"],
            **{f"images_per_second/{stage}": images / max(value, 1e-9) for stage, value in seconds.items()},
        }
        if self._writer:
            self._writer.record(record)
        if self._tensorboard:
            try:
                self._tensorboard(record, step)
            except OSError as error:
                self._progress.warn(f"warning: TensorBoard's events cannot be written ({error.strerror}) and end here")
                self._tensorboard = None
        self._progress.report(step, record)

    def draw_and_evaluate(self, step: int, pictures: bool, evaluation: bool) -> None:
        """Begin to draw the pictures of this step's model and to evaluate it, beside the training."""
        if self._writer and (pictures or evaluation):
            with self.stage("snapshots", host=True):
                self._writer.draw_and_evaluate(step, pictures, evaluation)

    def checkpoint(self, step: int, skipped: Sequence[Skipped]) -> None:
        """Begin to write a checkpoint, beside the training."""
        checkpoint = self._gather(step, skipped)
        if self._writer and checkpoint:
            self._writer.write_checkpoint(checkpoint)

    def last_checkpoint(self, step: int, skipped: Sequence[Skipped]) -> Callable[[bool], None]:
        """Gather the checkpoint that the run ends with.

        Returns:
            Writes it, where called on rank 0, and waits for it; told whether the run was asked to stop. Raises
            Interruption where it cannot be written.
        """
        checkpoint = self._gather(step, skipped)

        def write(stopped: bool) -> None:
            if self._writer and checkpoint:
                self._writer.write_last_checkpoint(checkpoint, stopped)

        return write

    def finish(self, step: int, finished: bool) -> dict[str, Any] | None:
        """Export the model, and evaluate and draw it where the run is finished.

        Returns:
            The evaluation of a finished run, on rank 0.

        Raises:
            UserError: where the folder cannot be written, or the held-out data cannot be read.
        """
        self._progress.stop()
        return self._writer.finish(step, finished) if self._writer else None

    def _gather(self, step: int, skipped: Sequence[Skipped]) -> Checkpoint | None:
        """All that a checkpoint holds, on rank 0; what several processes hold together, all must ask for."""
        tensors = self._components.state.tensors()
        if self._writer is None:
            return None
        plan = self._plan
        return Checkpoint(step, tensors, plan.config.to_dict(), plan.identity(), list(skipped))

    def _open_writer(self) -> RunWriter | None:
        plan, run = self._plan, self._run
        if run.folder is None:
            return None
        method, average = self._components.method, self._components.average
        outputs = ModelOutputs(plan, method, average, run.folder.snapshots, run.folder.model)
        return RunWriter(plan, run.folder, outputs, run.step, self._device, self._progress.warn)
