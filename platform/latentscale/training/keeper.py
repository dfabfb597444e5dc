"""What rank 0 keeps of a run in its folder, beside the training: checkpoints, pictures, evaluations and numbers.

A disk that is full, read-only or gone costs what could not be written then, never the run: it is said, and the next is
tried again.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from safetensors import SafetensorError

from latentscale.config import Config
from latentscale.errors import Interruption, UserError
from latentscale.telemetry.run_log import MetricsFile
from latentscale.training.background import Background
from latentscale.training.checkpoints import Checkpoint, list_checkpoints, save_checkpoint
from latentscale.training.folder import RunFolder
from latentscale.training.outputs import Outputs

_PATIENCE, _MOST_PATIENCE_SECONDS = 0.25, 10.0
"""Of the time after which the others give up waiting in a collective; a request to stop is not held up for longer."""
DISK_ERRORS = (OSError, SafetensorError)


class Keeper:
    """Rank 0's writer. Two jobs may be at work beside the training: a checkpoint, and pictures with evaluations.

    Args:
        outputs: draws and measures models.
        start: the step the run continues from.
        say: shows the user a line.
    """

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        outputs: Outputs,
        start: int,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self._config, self._folder, self._outputs, self._say = config, folder, outputs, say
        try:
            self._metrics = MetricsFile(folder.metrics, start)
        except OSError as error:
            raise folder.refusal(error) from None
        self._ended = False
        patience = min(_PATIENCE * config.distributed.timeout_seconds, _MOST_PATIENCE_SECONDS)
        self._writing = Background("checkpoint", patience, device)
        self._looking = Background("pictures and evaluation", patience, device)
        self._told: set[str] = set()

    def record(self, values: Mapping[str, Any]) -> None:
        """A line in ``metrics.jsonl``; what a full disk has no room for is written with a later one."""
        try:
            self._metrics.write(values)
            self._told.discard("metrics")
        except OSError as error:
            if "metrics" not in self._told:
                self._told.add("metrics")
                self._say(
                    f"warning: {self._folder.metrics} cannot be written ({error.strerror}): its lines are held until"
                    " it can"
                )

    def look(self, step: int, pictures: bool, evaluation: bool) -> None:
        """Draw the pictures of this step and measure its model, either or both, of a copy."""
        model = self._outputs.trained_model(step, copies=True)

        def job() -> None:
            try:
                if pictures and not self._ended:
                    self._outputs.snapshot(model)
                if evaluation and not self._ended:
                    found = self._outputs.evaluate(model)
                    self.record({"step": step, **{f"evaluation/{name}": value for name, value in found.items()}})
            except DISK_ERRORS as error:
                self._say(f"warning: what was drawn or measured at step {step:,} cannot be kept ({_reason(error)})")

        if not self._looking.start(job):
            self._say(
                f"note: nothing is drawn or measured at step {step:,}, since that of an earlier step is still at work:"
                " raise snapshot.every_steps or evaluation.every_steps"
            )

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a copy; the newest that stands stays whole."""
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in checkpoint.tensors.items()}
        whole = replace(checkpoint, tensors=copies)
        if not self._writing.start(lambda: self._try_to_write(whole)):
            self._say(
                f"warning: the checkpoint of step {whole.step:,} is left out, since the one before is still being"
                " written: raise checkpoint.every_steps, or write to a faster disk"
            )

    def last_checkpoint(self, checkpoint: Checkpoint, stopped: bool) -> None:
        """Write the one that a run ends with, and wait for it.

        Args:
            stopped: whether the run was asked to stop, and may be continued.

        Raises:
            Interruption: where it cannot be written.
        """
        self._writing.wait()
        try:
            self._write(checkpoint)
        except DISK_ERRORS as error:
            raise Interruption(
                f"the checkpoint of step {checkpoint.step:,} cannot be written to {self._folder.checkpoints}"
                f" ({_reason(error)}): make room there; {self._standing()}"
            ) from None
        if stopped:
            try:
                self._folder.mark_stopped(checkpoint.step)
            except OSError as error:
                self._say(
                    f"warning: {self._folder.stopped} cannot be written ({error.strerror}), but the run has stopped"
                )

    @property
    def failure(self) -> UserError | None:
        """What the work beside the training ended with, such as held-out data that are damaged."""
        for error in (self._looking.error, self._writing.error):
            if error is not None and not isinstance(error, UserError):
                raise error
        return self._looking.error  # type: ignore[return-value]

    def finish(self, step: int, finished: bool, taken: int) -> dict[str, Any] | None:
        """Export the model, and at the run's end draw and measure it.

        Args:
            taken: steps taken since the run was started; without any nothing new is recorded.

        Returns:
            What was measured, None for a run that only stopped: its time may be short.
        """
        evaluation = None
        try:
            if finished:
                self._looking.wait()
                if self.failure:
                    raise self.failure
            model = self._outputs.trained_model(step)
            self._outputs.export(model)
            if finished:
                evaluation = self._outputs.evaluate(model)
                if taken:
                    self.record({"step": step, **{f"evaluation/{name}": value for name, value in evaluation.items()}})
                self._outputs.snapshot(model)
        except DISK_ERRORS as error:
            raise Interruption(
                f"{self._folder.path} cannot be written ({_reason(error)}), but the checkpoint of step {step:,} stands"
                " in it: make room there, then run the same command for the model and the pictures"
            ) from None
        return evaluation

    def close(self) -> None:
        """Let a checkpoint that is being written be whole, and close the files."""
        self._ended = True
        self._writing.wait()
        self._metrics.close()

    def _try_to_write(self, checkpoint: Checkpoint) -> None:
        try:
            self._write(checkpoint)
        except (*DISK_ERRORS, UserError) as error:
            self._say(
                f"warning: the checkpoint of step {checkpoint.step:,} cannot be written to {self._folder.checkpoints}"
                f" ({_reason(error)}): the run goes on and tries the next; {self._standing()}"
            )

    def _write(self, checkpoint: Checkpoint) -> None:
        self._folder.restore(self._config)
        save_checkpoint(self._folder.checkpoints, checkpoint, self._config.checkpoint.keep)

    def _standing(self) -> str:
        """The checkpoint that a run would continue from."""
        try:
            there = list_checkpoints(self._folder.checkpoints)
        except OSError:
            there = []
        return f"the last good one is {there[-1].name}" if there else "there is no earlier one"


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error).splitlines()[0]
