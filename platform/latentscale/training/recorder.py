"""What is recorded of a run: reports, pictures, evaluations, checkpoints, and how long each stage took.

The loop reports every event to the recorder and does not know what becomes of it. Whatever else consumes these events,
such as a metrics server, belongs here and leaves the loop as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
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

PROGRESS_VALUES = (
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
"""Values of a report that the progress line shows, as far as the report has them."""


class Recorder:
    """Every process has one, with its own timings; only rank 0 writes into the run's folder and on the terminal.

    All processes must call `report`, `checkpoint` and `last_checkpoint` after the same step, because these run
    collectives. The other methods do not.

    A subclass passes the events on to whatever else consumes them: `record` receives each step, `reported` each report
    with its values, `evaluated` each evaluation, `checkpoint` and `last_checkpoint` each checkpoint, `finish` and
    `__exit__` the end. It acquires what it needs in `open`, and releases it in `__exit__`.

    Args:
        run: where the run continues from, with its folder on rank 0.
        accelerator: Accelerate's, which holds the device and the TensorBoard tracker.
        monitor: the heartbeat monitor, which is kept up to date on the step and its stage.

    Raises:
        UserError: on every process, if rank 0 cannot write.
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
        self._progress = ProgressLine(steps, run.step, telemetry.progress and self.rank == 0, PROGRESS_VALUES)
        self._accelerator = accelerator
        self._writer: RunWriter | None = None
        self._tensorboard: Callable[[Mapping[str, Any], int], None] | None = None

    def __enter__(self) -> "Recorder":
        with ExitStack() as undo:
            undo.push(self.__exit__)
            self.open()
            undo.pop_all()
        return self

    def open(self) -> None:
        """Open what is written to, and print the notes of the start; if it fails, the recorder is closed."""
        config, folder = self._plan.config, self._run.folder
        self._writer = run_on_rank_zero(self.rank, self._open_writer)
        if config.telemetry.tensorboard:
            self._tensorboard = run_on_rank_zero(self.rank, self._open_tensorboard)
        if folder and folder.moved_to:
            self._progress.info(f"moved the earlier run to {folder.moved_to}")
        self._progress.info(self._plan.in_words())
        for remark in self._plan.method.remarks(config.method, config.training.steps):
            self._progress.info(f"note: {remark}")
        if self._run.step:
            self._progress.info(f"continuing {config.run.dir} from step {self._run.step:,}")
        self._progress.start()

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
        """Why this process cannot go on recording, for instance because held-out data are damaged."""
        return self._writer.failure if self._writer else None

    def nonfinite_terms(self) -> list[str]:
        """Names of this process's values in the latest step that are not finite; waits for the device."""
        return self._health.nonfinite()

    def warn(self, text: str) -> None:
        """Print a line on the terminal, on rank 0 only."""
        if self.rank == 0:
            self._progress.warn(text)

    def begin_step(self, step: int) -> None:
        """Note that the next step begins.

        Args:
            step: steps taken before it.
        """
        self._monitor.step = step

    def stage(self, name: str, host: bool = False) -> AbstractContextManager[None]:
        """Time a stage of the step; ``host`` for work on the CPU alone."""
        return self._clock.stage(name, host)

    def record(self, step: int, result: StepResult) -> None:
        """Record a step's result; does not wait for the device.

        Args:
            step: steps taken, this one included.
        """
        self._health.add({**result.measured, "skipped_steps": result.skip})
        self._progress.advance(step)

    def report(self, step: int, skipped: Sequence[Skipped]) -> None:
        """Combine what all processes measured since the last report, and write it.

        Args:
            skipped: all samples that the run has skipped so far.
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
        self.reported(step, record)

    def reported(self, step: int, record: Mapping[str, Any]) -> None:
        """Write a report; every process has the same joined values, and its own timings."""
        if self._writer:
            self._writer.record(record)
        if self._tensorboard:
            try:
                self._tensorboard(record, step)
            except OSError as error:
                self._progress.warn(
                    f"warning: TensorBoard's events cannot be written ({error.strerror}): they end here"
                )
                self._tensorboard = None
        self._progress.report(step, record)

    def evaluated(self, step: int, evaluation: Mapping[str, Any]) -> None:
        """Write an evaluation, on rank 0 only; called from a background thread while the run trains."""
        if self._writer:
            self._writer.record({"step": step, **{f"evaluation/{name}": value for name, value in evaluation.items()}})

    def draw_and_evaluate(self, step: int, pictures: bool, evaluation: bool) -> None:
        """Start drawing the pictures of this step's model, or evaluating it, in the background."""
        if self._writer and (pictures or evaluation):
            with self.stage("snapshots", host=True):
                self._writer.draw_and_evaluate(step, pictures, evaluation)

    def checkpoint(self, step: int, skipped: Sequence[Skipped]) -> None:
        """Gather a checkpoint and start writing it in the background."""
        checkpoint = self._gather(step, skipped)
        if self._writer and checkpoint:
            self._writer.write_checkpoint(checkpoint)

    def last_checkpoint(self, step: int, skipped: Sequence[Skipped]) -> Callable[[bool], None]:
        """Gather the checkpoint that the run ends with.

        Returns:
            A function that writes it on rank 0, returns when it is complete, and raises Interruption if it cannot be
            written. Its argument is whether the run was asked to stop.
        """
        checkpoint = self._gather(step, skipped)

        def write(stopped: bool) -> None:
            if self._writer and checkpoint:
                self._writer.write_last_checkpoint(checkpoint, stopped)

        return write

    def finish(self, step: int, finished: bool) -> dict[str, Any] | None:
        """Export the model; if the run is finished, evaluate and draw it too.

        Returns:
            The evaluation of a finished run, on rank 0.

        Raises:
            UserError: if the folder cannot be written, or the held-out data cannot be read.
        """
        self._progress.stop()
        return self._writer.finish(step, finished) if self._writer else None

    def _gather(self, step: int, skipped: Sequence[Skipped]) -> Checkpoint | None:
        """The checkpoint on rank 0, None elsewhere; all processes take part, for an engine may partition the state."""
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
        return RunWriter(plan, run.folder, outputs, run.step, self._device, self._progress.warn, self.evaluated)

    def _open_tensorboard(self) -> Callable[[Mapping[str, Any], int], None]:
        try:
            return tensorboard_logger(self._accelerator, self._run.step)
        except OSError as error:
            folder = Path(self._plan.config.run.dir) / "tensorboard"
            raise UserError(
                f"{folder} cannot be written ({error.strerror}): remove it, or set telemetry.tensorboard=false"
            ) from None
