"""What rank 0 writes into a run's folder, in the background: checkpoints, pictures, evaluations and reports.

A disk that is full, read-only or missing never ends a run in the middle. What cannot be written is left out with a
warning, and the next write is tried as usual.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from safetensors import SafetensorError

from latentscale.errors import Interruption, UserError
from latentscale.telemetry.run_log import MetricsFile
from latentscale.training.background_jobs import BackgroundJobs
from latentscale.training.checkpoints import Checkpoint, list_checkpoints, save_checkpoint
from latentscale.training.model_outputs import ModelOutputs
from latentscale.training.plan import RunPlan
from latentscale.training.run_folder import RunFolder

_PATIENCE, _MOST_PATIENCE_SECONDS = 0.25, 10.0
"""How long a new job waits for the previous one: a fraction of the time that a collective may wait, and never longer
than a request to stop may take."""
DISK_ERRORS = (OSError, SafetensorError)


class RunWriter:
    """Rank 0's writer. Two jobs may run in the background: a checkpoint, and pictures with evaluations.

    Args:
        outputs: draws and measures models.
        start: the step the run continues from.
        warn: prints a line on the terminal.
        evaluated: called with the step and the figures of every new evaluation, from a background thread while the run
            trains.

    Raises:
        UserError: where ``metrics.jsonl`` cannot be written.
    """

    def __init__(
        self,
        plan: RunPlan,
        folder: RunFolder,
        outputs: ModelOutputs,
        start: int,
        device: torch.device,
        warn: Callable[[str], None],
        evaluated: Callable[[int, Mapping[str, Any]], None],
    ) -> None:
        self._config, self._folder, self._outputs, self._start, self._warn = plan.config, folder, outputs, start, warn
        self._evaluated = evaluated
        try:
            self._metrics = MetricsFile(folder.metrics, start)
        except OSError as error:
            raise folder.refusal(error) from None
        self._closing = False
        patience = min(_PATIENCE * plan.config.distributed.timeout_seconds, _MOST_PATIENCE_SECONDS)
        self._checkpoints = BackgroundJobs("checkpoint", patience, device)
        self._pictures = BackgroundJobs("pictures and evaluation", patience, device)
        self._metrics_warned = False

    def record(self, values: Mapping[str, Any]) -> None:
        """Append a line to ``metrics.jsonl``; on a full disk it is kept and written with a later one."""
        try:
            self._metrics.write(values)
            self._metrics_warned = False
        except OSError as error:
            if not self._metrics_warned:
                self._metrics_warned = True
                self._warn(
                    f"warning: {self._folder.metrics} cannot be written ({error.strerror}): its lines are kept until"
                    " it can be"
                )

    def draw_and_evaluate(self, step: int, pictures: bool, evaluation: bool) -> None:
        """Draw the pictures of this step's model and evaluate it, either or both, from a copy."""
        model = self._outputs.trained_model(step, copies=True)

        def job() -> None:
            try:
                if pictures and not self._closing:
                    self._outputs.snapshot(model)
                if evaluation and not self._closing:
                    found = self._outputs.evaluate(model)
                    self._evaluated(step, found)
            except DISK_ERRORS as error:
                self._warn(
                    f"warning: the pictures or the evaluation of step {step:,} cannot be written ({_reason(error)})"
                )

        if not self._pictures.start(job):
            self._warn(
                f"note: step {step:,} gets no pictures and no evaluation, because those of an earlier step are still in"
                " progress: raise snapshot.every_steps or evaluation.every_steps"
            )

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a copy in the background; the previous checkpoint stays until this one is complete."""
        tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in checkpoint.tensors.items()}
        copied = replace(checkpoint, tensors=tensors)
        if not self._checkpoints.start(lambda: self._try_to_write(copied)):
            self._warn(
                f"warning: the checkpoint of step {copied.step:,} is left out, since the previous one is still being"
                " written: raise checkpoint.every_steps, or write to a faster disk"
            )

    def write_last_checkpoint(self, checkpoint: Checkpoint, stopped: bool) -> None:
        """Write the one that a run ends with, and wait for it.

        Args:
            stopped: whether the run was asked to stop, and may be continued.

        Raises:
            Interruption: where it cannot be written.
        """
        self._checkpoints.wait()
        try:
            self._write(checkpoint)
        except DISK_ERRORS as error:
            raise Interruption(
                f"the checkpoint of step {checkpoint.step:,} cannot be written to {self._folder.checkpoints}"
                f" ({_reason(error)}): make room there; {self._last_good()}"
            ) from None
        if stopped:
            try:
                self._folder.mark_stopped(checkpoint.step)
            except OSError as error:
                self._warn(
                    f"warning: {self._folder.stopped} cannot be written ({error.strerror}), but the run has stopped"
                )

    @property
    def failure(self) -> UserError | None:
        """Why a background job failed, for instance because held-out data are damaged."""
        for error in (self._pictures.error, self._checkpoints.error):
            if error is not None and not isinstance(error, UserError):
                raise error
        return self._pictures.error  # type: ignore[return-value]

    def finish(self, step: int, finished: bool) -> dict[str, Any] | None:
        """Export the model; if the run is finished, evaluate and draw it too.

        Returns:
            The evaluation; None for a run that was stopped, which may have little time left.
        """
        evaluation = None
        try:
            if finished:
                self._pictures.wait()
                if self.failure:
                    raise self.failure
            model = self._outputs.trained_model(step)
            self._outputs.export(model)
            if finished:
                evaluation = self._outputs.evaluate(model)
                if step > self._start:  # else it is recorded already
                    self._evaluated(step, evaluation)
                self._outputs.snapshot(model)
        except DISK_ERRORS as error:
            raise Interruption(
                f"{self._folder.path} cannot be written ({_reason(error)}), but the checkpoint of step {step:,} is"
                " in it: make room there, then run the same command for the model and the pictures"
            ) from None
        return evaluation

    def close(self) -> None:
        """Wait until a checkpoint that is being written is complete, and close the files."""
        self._closing = True
        self._checkpoints.wait()
        self._metrics.close()

    def _try_to_write(self, checkpoint: Checkpoint) -> None:
        try:
            self._write(checkpoint)
        except (*DISK_ERRORS, UserError) as error:
            self._warn(
                f"warning: the checkpoint of step {checkpoint.step:,} cannot be written to {self._folder.checkpoints}"
                f" ({_reason(error)}): the run continues and tries again at the next; {self._last_good()}"
            )

    def _write(self, checkpoint: Checkpoint) -> None:
        self._folder.restore(self._config)
        save_checkpoint(self._folder.checkpoints, checkpoint, self._config.checkpoint.keep)

    def _last_good(self) -> str:
        """Which checkpoint a run would continue from, in words."""
        try:
            there = list_checkpoints(self._folder.checkpoints)
        except OSError:
            there = []
        return f"the last good one is {there[-1].name}" if there else "there is no earlier one"


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error).splitlines()[0]
