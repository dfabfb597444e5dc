"""A report: what the processes measured since the last one, joined and told to the disk and the terminal."""

from collections.abc import Callable, Mapping
from typing import Any

from latentscale.methods.base import Method
from latentscale.telemetry.run_log import ProgressLine
from latentscale.training.health import Health, StageClock
from latentscale.training.keeper import Keeper
from latentscale.training.prepare import Preparation

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


class Reports:
    """Writes a report on rank 0; the others take part in joining its values.

    Args:
        tensorboard: takes a record and its step; None for none.
    """

    def __init__(
        self,
        preparation: Preparation,
        method: Method,
        health: Health,
        clock: StageClock,
        keeper: Keeper | None,
        tensorboard: Callable[[Mapping[str, Any], int], None] | None,
        progress: ProgressLine,
    ) -> None:
        self._method, self._health, self._clock = method, health, clock
        self._keeper, self._tensorboard, self._progress = keeper, tensorboard, progress
        self._batch = preparation.plan.batch
        self._epoch_images = preparation.dataset.count  # type: ignore[union-attr]

    def write(self, step: int, steps: int, learning_rate_factor: float, skipped_samples: int | None) -> None:
        """Every process must call it after the same step.

        Args:
            steps: taken since the last report.
            skipped_samples: None where none may be.
        """
        values = self._health.join()
        if skipped_samples is not None:
            values["data/skipped_samples"] = skipped_samples
        seconds = self._clock.read()
        images = steps * self._batch
        record: dict[str, Any] = {
            "step": step,
            "images": step * self._batch,
            "epoch": step * self._batch / self._epoch_images,
            "learning_rate_factor": learning_rate_factor,
            **values,
            **{name: float(value) for name, value in self._method.summary().items()},
            **{f"seconds/{stage}": value for stage, value in seconds.items()},
            "images_per_second": images / seconds["total"],
            **{f"images_per_second/{stage}": images / max(value, 1e-9) for stage, value in seconds.items()},
        }
        if self._keeper:
            self._keeper.record(record)
        if self._tensorboard:
            try:
                self._tensorboard(record, step)
            except OSError as error:
                self._progress.warn(f"warning: TensorBoard's events cannot be written ({error.strerror}) and end here")
                self._tensorboard = None
        self._progress.report(step, record)
